"""The state of a run as its folder shows it, without opening data, model or checkpoints."""

import dataclasses
import functools
import math
import os
from typing import Any

from etils import epath

from cbalign.config import load_config
from cbalign.experiments.suite import Column, Evaluation, Measurement, ServerFigure
from cbalign.runs import provenance, results
from cbalign.storage import parse_json, read_json

# From nothing to everything. "diverged" ends the same way every time; "failed" may succeed when started again.
MISSING, PARTIAL, DIVERGED, FAILED, FINISHED = "missing", "partial", "diverged", "failed", "finished"


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A workdir, which need not exist.

    Attributes:
      workdir: the folder.
      status: one of the states above; finished means that all steps are done, whatever was evaluated.
      step: the last step in its metrics.
      steps: all steps of the run; 0 where unknown.
      message: what stopped a run that diverged, failed or was interrupted.
      commit: of the last start, followed by "+" where files differed from the commit; "" where unknown.
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
    def rehearsal(self) -> bool:
        """Whether it is a run of a miniature, whose figures mean nothing."""
        return bool(self.config.get("rehearse"))

    def result(self, source: Evaluation | Measurement | ServerFigure) -> dict | None:
        """What an evaluation or measurement wrote; None where there is none, or its file is damaged."""
        if isinstance(source, Measurement):
            return read_json(stability_path(self.workdir))
        if isinstance(source, ServerFigure) or not self.config:
            return None
        own = {name: _section(self.config, name) for name in ("data", "protocol")}
        protocol = _protocol_name(source.protocol) if source.protocol else own["protocol"].get("name", "")
        return results.read_result(
            self.workdir,
            task=self.config.get("task", "pretrain"),
            data=source.data or own["data"].get("name", ""),
            split=source.split,
            protocol=protocol,
        )

    def figure(self, column: Column) -> float | None:
        """A column's figure; None where it is not there."""
        found: Any = self.result(column.source)
        for key in column.path:
            found = found.get(key) if isinstance(found, dict) else None
        if column.mean and isinstance(found, dict | list):
            values = [x for x in (found.values() if isinstance(found, dict) else found) if _is_figure(x)]
            found = sum(values) / len(values) if values else None
        return found if _is_figure(found) else None


def read_run(workdir: os.PathLike | str) -> RunFolder:
    """Reads the state of a workdir; damaged files count as missing."""
    workdir = epath.Path(workdir)
    config = read_json(workdir / "config.json") or {}
    if not config:
        return RunFolder(workdir, MISSING, 0, 0, "", "", "", {})
    record, step = provenance.read(workdir), _last_step(workdir / "metrics.jsonl")
    start = record["starts"][-1] if record["starts"] else {}
    end = record["end"] or {}
    steps = _section(config, "train").get("steps")
    steps = steps if _is_figure(steps) and isinstance(steps, int) else 0
    status = end.get("status", "")
    if status not in (DIVERGED, FAILED):
        # The last step is logged before it is saved: a run that was killed in between has no such checkpoint.
        done = status == FINISHED or (not record["starts"] and step >= steps)
        status = FINISHED if steps and done else PARTIAL
    commit = str(start.get("commit", ""))[:10] + ("+" if start.get("modified") else "")
    return RunFolder(workdir, status, step, steps, end.get("message", ""), commit, start.get("command", ""), config)


def stability_path(workdir: os.PathLike | str) -> epath.Path:
    """The file of a run's `Measurement`."""
    return epath.Path(workdir) / results.FOLDER / "stability.json"


@functools.cache
def _protocol_name(config: str) -> str:
    """What a config calls its protocol, which result files are named after."""
    return load_config(config).protocol.name


def _last_step(file: epath.Path) -> int:
    """The last step in a metrics.jsonl; 0 without any. Damaged lines, as of a run that was killed, are skipped."""
    steps = [0]
    if file.exists():
        for line in file.read_bytes().decode(errors="replace").splitlines():
            try:
                steps.append(int(parse_json(line)["step"]))
            except (ValueError, KeyError, TypeError, OverflowError):
                continue
    return max(steps)


def _section(config: dict, name: str) -> dict:
    """A section of a stored config, which may be damaged."""
    section = config.get(name)
    return section if isinstance(section, dict) else {}


def _is_figure(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
