"""Means of every term over each epoch, from the lines of `metrics.jsonl`."""

import json
import math
from collections.abc import Iterable

_PREFIX = "train/"
DEVIATION = "_deviation"
# Of these the spread from step to step is told too: a sign of how calmly a run goes.
SPREAD = ("loss", "ica", "gradient_norm")
_NO_TERMS = ("epoch", "pairs_per_second")


class EpochMeans:
    """Adds up the lines of a run, epoch by epoch.

    Each line has the means over the steps since the line before it, and no line reaches over the end of an epoch; so
    the lines up to a step say all there is to know up to that step, and a resumed run goes on from its own lines.

    Attributes:
      steps_per_epoch: steps in one pass over the training data.
    """

    def __init__(self, steps_per_epoch: int, lines: Iterable[str] = ()):
        """Starts from the lines of a metrics.jsonl, in the order of their steps."""
        self.steps_per_epoch = steps_per_epoch
        self._last_step = 0
        self._epochs = {}
        for line in lines:
            row = json.loads(line)
            self.add(row["step"], row)

    def add(self, step: int, metrics: dict) -> None:
        """Takes one line; lines of evaluations are passed over."""
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
            # Means weigh by their steps, and so do variances about the mean of their line.
            squared = term.endswith(DEVIATION)
            sums.totals[term] = sums.totals.get(term, 0.0) + count * (value**2 if squared else value)

    def as_dict(self) -> dict:
        """{"steps_per_epoch", "epochs": [{"epoch", "steps", "means": {term: value}, "deviations": {term: value}}]}.

        "epoch" counts from 1. The newest epoch may have fewer "steps" than there are in one. A deviation is that from
        step to step about the mean of the line (of `train.log_steps` steps), so that the trend stays out of it.
        """
        return {"steps_per_epoch": self.steps_per_epoch,
                "epochs": [{"epoch": epoch + 1, **sums.as_dict()} for epoch, sums in sorted(self._epochs.items())]}


class _Sums:
    """Sums over the lines of one epoch."""

    def __init__(self):
        self.steps, self.lines, self.totals = 0, 0, {}

    def as_dict(self) -> dict:
        means = {name: total / self.steps for name, total in self.totals.items() if not name.endswith(DEVIATION)}
        # Each line's mean takes one degree of freedom.
        freedom = self.steps - self.lines
        deviations = {name.removesuffix(DEVIATION): math.sqrt(total / freedom)
                      for name, total in self.totals.items() if name.endswith(DEVIATION) and freedom > 0}
        return {"steps": self.steps, "means": means, "deviations": deviations}


def line_metrics(rows: list[dict]) -> dict:
    """The metrics of one line: means over the rows of its steps, and population deviations of the terms of `SPREAD`."""
    count = len(rows)
    means = {name: sum(float(row[name]) for row in rows) / count for name in rows[0]}
    for name in SPREAD:
        if name in means:
            variance = sum((float(row[name]) - means[name]) ** 2 for row in rows) / count
            means[name + DEVIATION] = math.sqrt(variance)
    return means


def split_by_epoch(rows: list, last_step: int, steps_per_epoch: int) -> list[tuple[int, list]]:
    """Cuts the rows of consecutive steps at the ends of epochs.

    Args:
      rows: one a step; the last is that of `last_step`.
      last_step: counted from 1.
      steps_per_epoch: an epoch ends at each multiple of it.

    Returns:
      [(last step, rows up to it)].
    """
    parts = []
    for i, row in enumerate(rows):
        step = last_step - len(rows) + 1 + i
        if not parts or (step - 1) % steps_per_epoch == 0:
            parts.append((step, []))
        parts[-1][1].append(row)
        parts[-1] = (step, parts[-1][1])
    return parts
