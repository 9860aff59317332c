"""What a run has written so far: metrics by step, results of evaluations, lines of its log."""

from __future__ import annotations

import dataclasses
import math
import os
import re

import numpy as np
from etils import epath

from cbalign.experiments.run_status import stability_path
from cbalign.runs import provenance
from cbalign.runs.results import read_results
from cbalign.storage import parse_json, read_json

# Metrics of evaluations during training: SPLIT/KIND/FIGURE.
_EVALUATED = re.compile(r"(.+?)/(chance|contrastive|itm|sum|accuracy)/(.+)")
# What a damaged line may hold beyond these, plots cannot show.
_MAX_STEP, _LARGEST = 2**53, 1e300


@dataclasses.dataclass(frozen=True)
class History:
    """The contents of a workdir; each part may be empty.

    Attributes:
      metrics: {name: (steps int64 [n], values float64 [n])} of metrics.jsonl; a value that was not finite is NaN.
      times: float64 [n], seconds since 1970 of all lines.
      results: of evaluations, as `runs.results.read_results` returns them.
      started: lines of the log that say where the run started from and on which devices.
      command: of the last start, or "".
      stability: of the targets, as `experiments.stability` wrote it for a run of a suite; None where there is none.
    """

    metrics: dict[str, tuple[np.ndarray, np.ndarray]]
    times: np.ndarray
    results: list[dict]
    started: list[str]
    command: str
    stability: dict | None = None

    @property
    def last_step(self) -> int:
        """The last step with a line of metrics; 0 where there is none."""
        return max((int(steps[-1]) for steps, _ in self.metrics.values()), default=0)

    def latest_evaluation(self) -> dict[tuple[str, int], dict[str, dict[str, float]]]:
        """{(split, step): {"chance", "contrastive", "accuracy", ...: {name: %}}} of the last evaluations."""
        found: dict = {}
        for name, (steps, values) in self.metrics.items():
            if parts := _EVALUATED.match(name):
                split, kind, column = parts.groups()
                figures = found.setdefault((split, int(steps[-1])), {}).setdefault(kind, {})
                figures[column] = None if np.isnan(values[-1]) else float(values[-1])
        return {place: kinds for place, kinds in found.items() if kinds.keys() - {"chance"}}


def read_history(workdir: os.PathLike | str) -> History:
    """Reads a workdir, skipping damaged lines and files such as those that a kill leaves incomplete."""
    workdir = epath.Path(workdir)
    lines = map(_json_object, _text(workdir / "metrics.jsonl").splitlines())
    rows = [row for row in lines if _is_number(row.get("step")) and abs(row["step"]) < _MAX_STEP]
    log = _text(workdir / "train.log").splitlines()
    return History(
        metrics=_columns(rows),
        times=np.array([row["time"] for row in rows if _is_number(row.get("time"))], np.float64),
        results=[result for result in read_results(workdir) if result.keys() & {"accuracy", "contrastive"}],
        started=[line.strip() for line in log if re.search(r"<- taken$|device\(s\), ", line)],
        stability=_stability(workdir),
        command=next((start.get("command", "") for start in reversed(provenance.read(workdir)["starts"])), ""),
    )


def _stability(workdir: epath.Path) -> dict | None:
    found = read_json(stability_path(workdir))
    return found if found and {"pairs", "steps", "codes", "instances"} <= found.keys() else None


def _text(path: epath.Path) -> str:
    return path.read_bytes().decode(errors="replace") if path.exists() else ""


def _json_object(line: str) -> dict:
    try:
        value = parse_json(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _is_number(value) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < _LARGEST and not math.isnan(value)


def _columns(rows: list[dict]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{name: (steps, values)} in ascending order of steps; of two lines with the same step the later one counts."""
    columns: dict[str, dict[int, float]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in ("step", "time") and (value is None or _is_number(value)):
                columns.setdefault(name, {})[int(row["step"])] = np.nan if value is None else float(value)
    return {
        name: (np.array(sorted(values), np.int64), np.array([values[step] for step in sorted(values)], np.float64))
        for name, values in columns.items()
    }
