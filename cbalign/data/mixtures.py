"""Names of data sets and mixtures of them, as in `data.name`."""

import math
import os

from cbalign.errors import UserError


def parse_mixture(name: str) -> list[tuple[str, float]]:
    """The sources of `A+B*0.5` and their weights; the default weight is 1.

    Raises:
      UserError: a source without a name, a weight that is not a positive number, or a source named twice.
    """
    if os.path.isdir(name):
        return [(name, 1.0)]
    sources = []
    for term in name.split("+"):
        source, star, weight = (word.strip() for word in term.partition("*"))
        try:
            weight = float(weight) if star else 1.0
        except ValueError:
            weight = 0.0
        if not source or not 0 < weight < math.inf:
            raise UserError(
                f"data {name!r}: {term.strip()!r} is not NAME or NAME*WEIGHT with a weight above 0, as in "
                "coco_karpathy+visual_genome*0.5"
            )
        sources.append((source, weight))
    if len({source for source, _ in sources}) < len(sources):
        raise UserError(f"data {name!r} names a source twice; name it once, with a weight")
    return sources
