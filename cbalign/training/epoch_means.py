"""Means of every metric over each epoch, computed from the lines of `metrics.jsonl`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence

_PREFIX = "train/"
DEVIATION = "_deviation"
# Metrics whose standard deviation from step to step is reported as well, as a measure of training stability.
SPREAD = ("loss", "ica", "gradient_norm")
_NO_TERMS = ("epoch", "pairs_per_second")


class EpochMeans:
    """Accumulates the lines of a run, epoch by epoch.

    Each line holds means over the steps since the previous line, and no line spans the end of an epoch. The lines up
    to a step therefore determine the means up to that step, and a resumed run starts from its own lines.

    Attributes:
      steps_per_epoch: steps in one pass over the training data.
    """

    def __init__(self, steps_per_epoch: int, lines: Iterable[str] = ()):
        """Starts from the lines of a `metrics.jsonl` file, in ascending order of steps."""
        self.steps_per_epoch = steps_per_epoch
        self._last_step = 0
        self._epochs = {}
        for line in lines:
            row = json.loads(line)
            self.add(row["step"], row)

    def add(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Adds one line; lines of evaluations, which have no loss, are ignored."""
        if f"{_PREFIX}loss" not in metrics:
            return
        count = step - self._last_step
        sums = self._epochs.setdefault((step - 1) // self.steps_per_epoch, _Sums())
        sums.steps += count
        sums.lines += 1
        self._last_step = step
        for name, value in metrics.items():
            term = name.removeprefix(_PREFIX)
            if name == term or term in _NO_TERMS or value is None:
                continue
            # Means, and variances about the mean of their line, are weighted by the number of steps.
            squared = term.endswith(DEVIATION)
            sums.totals[term] = sums.totals.get(term, 0.0) + count * (value**2 if squared else value)

    def as_dict(self) -> dict:
        """The content of `losses.json`.

        Returns:
          {"steps_per_epoch", "epochs": [{"epoch", "steps", "means": {term: value}, "deviations": {term: value}}]}.
          "epoch" counts from 1. The last epoch may be incomplete, with fewer "steps". Deviations are standard
          deviations from step to step about the mean of each line (`train.log_steps` steps), which excludes the trend.
        """
        return {
            "steps_per_epoch": self.steps_per_epoch,
            "epochs": [{"epoch": epoch + 1, **sums.as_dict()} for epoch, sums in sorted(self._epochs.items())],
        }


class _Sums:
    """Sums over the lines of one epoch."""

    def __init__(self):
        self.steps, self.lines, self.totals = 0, 0, {}

    def as_dict(self) -> dict:
        means = {name: total / self.steps for name, total in self.totals.items() if not name.endswith(DEVIATION)}
        # Each line's mean takes one degree of freedom.
        freedom = self.steps - self.lines
        deviations = {
            name.removesuffix(DEVIATION): math.sqrt(total / freedom)
            for name, total in self.totals.items()
            if name.endswith(DEVIATION) and freedom > 0
        }
        return {"steps": self.steps, "means": means, "deviations": deviations}


def line_metrics(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The metrics of one line: means over its steps, and population standard deviations of the terms in `SPREAD`.

    Args:
      rows: the metrics of each step, at least one.
    """
    count = len(rows)
    means = {name: sum(float(row[name]) for row in rows) / count for name in rows[0]}
    for name in SPREAD:
        if name in means:
            variance = sum((float(row[name]) - means[name]) ** 2 for row in rows) / count
            means[name + DEVIATION] = math.sqrt(variance)
    return means


def split_by_epoch(rows: list, last_step: int, steps_per_epoch: int) -> list[tuple[int, list]]:
    """Splits rows of consecutive steps at the ends of epochs.

    Args:
      rows: one for each step, the last that of `last_step`.
      last_step: counted from 1.
      steps_per_epoch: an epoch ends at every multiple of it.

    Returns:
      [(last step of the part, its rows)].
    """
    parts = []
    for i, row in enumerate(rows):
        step = last_step - len(rows) + 1 + i
        if not parts or (step - 1) % steps_per_epoch == 0:
            parts.append((step, []))
        parts[-1][1].append(row)
        parts[-1] = (step, parts[-1][1])
    return parts
