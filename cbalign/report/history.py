"""What a run has written so far: metrics by step, results of evaluations, a few lines of its log."""

import dataclasses
import json
import re

import numpy as np
from etils import epath

from cbalign.runs import provenance


@dataclasses.dataclass(frozen=True)
class History:
    """A workdir as far as it has come; every part may be missing.

    Attributes:
      metrics: {name: (steps int64 [n], values float64 [n])} of metrics.jsonl; a value that was not finite is NaN.
      times: float64 [n], seconds since 1970 of all lines.
      results: the dictionaries that `evaluate` wrote to metrics/, sorted by file name.
      started: the lines of the log on when and on what the run was started.
      command: of the last start, or "".
    """

    metrics: dict
    times: np.ndarray
    results: list
    started: list
    command: str

    @property
    def last_step(self) -> int:
        """The last step of which there is a line; 0 without any."""
        return max((int(steps[-1]) for steps, _ in self.metrics.values()), default=0)


def read_history(workdir) -> History:
    """Reads what there is; damaged lines and files, such as one cut off by a kill, are passed over."""
    workdir = epath.Path(workdir)
    lines = map(_json_object, _text(workdir / "metrics.jsonl").splitlines())
    rows = [row for row in lines if _is_number(row.get("step"))]
    log = _text(workdir / "train.log").splitlines()
    return History(
        metrics=_columns(rows),
        times=np.array([row["time"] for row in rows if _is_number(row.get("time"))], np.float64),
        results=_results(workdir / "metrics"),
        started=[line.strip() for line in log if re.search(r"<- taken$|device\(s\), ", line)],
        command=next((start.get("command", "") for start in reversed(provenance.read(workdir)["starts"])), ""),
    )


def _text(path) -> str:
    return path.read_bytes().decode(errors="replace") if path.exists() else ""


def _json_object(line: str) -> dict:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _columns(rows) -> dict:
    """{name: (steps, values)} in the order of the steps; of a step written twice the later line counts."""
    columns = {}
    for row in rows:
        for name, value in row.items():
            if name not in ("step", "time") and (value is None or _is_number(value)):
                columns.setdefault(name, {})[int(row["step"])] = np.nan if value is None else float(value)
    return {name: (np.array(sorted(values), np.int64), np.array([values[step] for step in sorted(values)], np.float64))
            for name, values in columns.items()}


def _results(folder) -> list:
    if not folder.exists():
        return []
    files = sorted((path for path in folder.iterdir() if path.name.endswith(".json")), key=lambda path: path.name)
    found = [_json_object(_text(path)) for path in files]
    return [result for result in found if {"data", "split", "images", "texts"} <= result.keys()]
