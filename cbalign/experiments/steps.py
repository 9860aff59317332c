"""A suite of single runs as commands in the order in which they are to be run."""

import dataclasses
import shlex

from etils import epath

from cbalign.experiments.run_status import FINISHED, read_run
from cbalign.experiments.suite import Row, Suite


@dataclasses.dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
      row: what it belongs to.
      kind: "train" or "evaluate".
      arguments: of `cbalign`, from the name of the command on.
      done: whether its result is there.
    """

    row: Row
    kind: str
    arguments: tuple[str, ...]
    done: bool

    @property
    def command(self) -> str:
        """As typed."""
        return shlex.join(["cbalign", *self.arguments])


def workdir(row: Row, runs) -> epath.Path:
    """The folder of the run that a row trains or evaluates."""
    return epath.Path(runs) / (row.name if row.trains else row.after)


def plan(suite: Suite, runs, *, only=(), weights: str = "") -> list[Step]:
    """All steps of the named rows and of what they start from, done or not, each after the ones it needs.

    Args:
      suite: which.
      runs: folder of its runs.
      only: names of rows; all by default.
      weights: what rows start from that start from no other row, as in `config.init.weights`.
    """
    planned = []
    for row in suite.select(only):
        folder = read_run(workdir(row, runs))
        if row.trains:
            begin = epath.Path(runs) / row.after if row.after else weights
            start = [f"--config.init.weights={begin}"] if begin else []
            overrides = [f"--config.{override}" for override in row.overrides]
            arguments = ("train", f"--config={row.config}", f"--workdir={folder.workdir}", *start, *overrides)
            planned.append(Step(row, "train", arguments, folder.status == FINISHED))
        for evaluation in row.evaluations:
            by = [f"--data={evaluation.data}"] if evaluation.data else []
            by = [f"--config={evaluation.protocol}"] if evaluation.protocol else by
            arguments = ("evaluate", f"--workdir={folder.workdir}", *by, f"--split={evaluation.split}")
            done = folder.status == FINISHED and folder.result(evaluation) is not None
            planned.append(Step(row, "evaluate", arguments, done))
    return planned
