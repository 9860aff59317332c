"""The state of a run as its folder tells it, without opening what takes long: no JAX, no tensorflow, no checkpoint."""

import dataclasses
import json
import math

from etils import epath

from cbalign.runs import provenance
from cbalign.report.history import read_history
from cbalign.experiments.suite import Column, Evaluation

# From nothing to everything; "diverged" ends the same way every time, "failed" may be mended and started again.
MISSING, PARTIAL, DIVERGED, FAILED, FINISHED = "missing", "partial", "diverged", "failed", "finished"


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A workdir, which need not exist.

    Attributes:
      workdir: the folder.
      status: one of the states above; finished says that all steps are done, of evaluations nothing.
      step: the last step its metrics tell of.
      steps: to be done in all; 0 where unknown.
      message: what stopped a run that diverged or failed.
      commit: of the last start, "+" behind it where files differed from the commit; "" where unknown.
      command: of the last start, "" where unknown.
      config: its stored config as plain dictionaries.
    """

    workdir: epath.Path
    status: str
    step: int
    steps: int
    message: str
    commit: str
    command: str
    config: dict

    @property
    def data(self) -> str:
        """The name of its data set."""
        return (self.config.get("data") or {}).get("name", "")

    def result(self, evaluation: Evaluation) -> dict | None:
        """What an evaluation wrote; None where it was not made, or its file is damaged."""
        return read_json(self.workdir / evaluation.file(self.data))

    def figure(self, column: Column) -> float | None:
        """A column's figure; None where it is not there. Where its path ends at several figures, their mean."""
        found = self.result(column.evaluation)
        for key in column.path:
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, (dict, list)):
            values = [value for value in (found.values() if isinstance(found, dict) else found) if _is_figure(value)]
            found = sum(values) / len(values) if values else None
        return found * column.factor if _is_figure(found) else None


def read_run(workdir) -> RunFolder:
    """Reads the state of a workdir; damaged files count as missing."""
    workdir = epath.Path(workdir)
    config = read_json(workdir / "config.json") or {}
    if not config:
        return RunFolder(workdir, MISSING, 0, 0, "", "", "", {})
    record, step = provenance.read(workdir), read_history(workdir).last_step
    start = record["starts"][-1] if record["starts"] else {}
    end = record["end"] or {}
    steps = int((config.get("train") or {}).get("steps") or 0)
    status = end.get("status", "")
    if status not in (DIVERGED, FAILED):
        status = FINISHED if steps and (status == FINISHED or step >= steps) else PARTIAL
    commit = start.get("commit", "")[:10] + ("+" if start.get("modified") else "")
    return RunFolder(workdir, status, step, steps, end.get("message", ""), commit, start.get("command", ""), config)


def read_json(file) -> dict | None:
    """The object in a JSON file; None where there is none."""
    try:
        content = json.loads(epath.Path(file).read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _is_figure(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
