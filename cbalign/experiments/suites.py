"""The suites by name."""

from cbalign.errors import UserError
from cbalign.experiments.batch_sizes import ICONS
from cbalign.experiments.paper import PAPER
from cbalign.experiments.small import EMOJI, SCENES
from cbalign.experiments.suite import Suite

SUITES = {suite.name: suite for suite in (PAPER, SCENES, EMOJI, ICONS)}


def get_suite(name: str) -> Suite:
    """The suite of that name.

    Raises:
      UserError: there is none.
    """
    if name not in SUITES:
        raise UserError(f"no suite {name!r}; choose one of {', '.join(SUITES)}")
    return SUITES[name]
