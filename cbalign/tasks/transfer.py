"""Parameters to start a task from: another run's, under the task's declared renames; nothing is left out silently."""

import dataclasses
import re

import numpy as np

from cbalign.errors import UserError

# Rows of the word pieces; these parameters follow the vocabulary.
_VOCABULARY_ROWS = r"(text_encoder|answer)_?(/embeddings|embeddings)/word/embedding|(answer|masked_token)_head/bias"


@dataclasses.dataclass(frozen=True)
class Rules:
    """How the parameters of one task follow from those of another.

    Attributes:
      renames: (pattern of a whole name here, name there), tried in order; a name no pattern matches is the same there.
      fresh: patterns of names here that start from random weights on purpose.
      unused: patterns of names there that this task has no use for.
    """

    renames: tuple = ()
    fresh: tuple = ()
    unused: tuple = ()


def take_over(ours: dict, theirs: dict, rules: Rules, *, vocabulary=None) -> tuple[dict, dict]:
    """Fills a task's parameters from another run's.

    Args:
      ours: {name: array} as initialised, or shapes of them.
      theirs: {name: array}.
      rules: what is renamed, fresh and unused.
      vocabulary: float32 [V here, V there] that makes the rows of this vocabulary from those of the other one; None
        where both are the same.

    Returns:
      ({name: array or None for a fresh one}, {"taken", "renamed", "fresh", "unused": lists of names}).

    Raises:
      UserError: a parameter without a source, a source that is neither used nor declared unused, or another shape.
    """
    found, report = {}, {"taken": [], "renamed": [], "fresh": [], "unused": []}
    used, missing, shapes = set(), [], []
    for name, like in ours.items():
        if _matches(rules.fresh, name):
            found[name] = None
            report["fresh"].append(name)
            continue
        source = _source(rules.renames, name)
        if source not in theirs:
            missing.append(name)
            continue
        used.add(source)
        report["taken" if source == name else "renamed"].append(name)
        array = _fitted(name, np.asarray(theirs[source]), np.shape(like), vocabulary)
        if array.shape != np.shape(like):
            shapes.append(f"{name} {array.shape} -> {np.shape(like)}")
        found[name] = array
    unknown = [name for name in theirs if name not in used and not _matches(rules.unused, name)]
    report["unused"] = [name for name in theirs if name not in used]
    if missing:
        raise UserError(f"the weights to start from lack {_some(missing)}; name a run whose task leads to this one")
    if unknown:
        raise UserError(f"the weights to start from hold {_some(unknown)}, which this task has no use for")
    if shapes:
        raise UserError(f"the weights to start from have other sizes: {_some(shapes)}; give the config the same model "
                        "section as that run")
    return found, report


def _fitted(name: str, array, shape, vocabulary):
    """Position embeddings brought to the image's size or the text's length, words to the vocabulary."""
    if vocabulary is not None and re.fullmatch(_VOCABULARY_ROWS, name):
        return (vocabulary @ array).astype(np.float32)
    if name == "image_encoder/position_embedding" and array.shape != shape:
        from cbalign.models.positions import grid_side, resize_positions

        return np.asarray(resize_positions(array, grid_side(shape[1] - 1)))
    if name.endswith("embeddings/position/embedding"):
        return array[:shape[0]]
    return array


def _source(renames, name: str) -> str:
    for pattern, there in renames:
        if match := re.fullmatch(pattern, name):
            return match.expand(there)
    return name


def _matches(patterns, name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def _some(names) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
