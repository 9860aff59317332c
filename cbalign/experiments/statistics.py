"""Means over seeds with an interval, and paired differences."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over seeds with Student's interval.

    Attributes:
      mean: of the values.
      half_width: of the interval of `CONFIDENCE` about the mean; None of fewer than two values.
      count: how many values there are.
    """

    mean: float
    half_width: float | None
    count: int

    @property
    def clear_of_zero(self) -> bool:
        """Whether the interval leaves out 0: as a difference, one that chance alone rarely makes."""
        return self.half_width is not None and abs(self.mean) > self.half_width


def estimate(values: Sequence[float]) -> Estimate | None:
    """Mean and two-sided t interval, mean ± t(n - 1) s / sqrt(n) with s the sample's standard deviation.

    Args:
      values: one a seed.

    Returns:
      None of no values.
    """
    values = np.asarray(list(values), np.float64)
    if not len(values):
        return None
    mean, half_width = float(values.mean()), None
    if len(values) > 1:
        quantile = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
        half_width = quantile * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Estimate(mean, half_width, len(values))


def paired_difference(values: Mapping[int, float], before: Mapping[int, float]) -> Estimate | None:
    """The mean of values - before over the seeds that both have, which share initial weights and data order.

    Args:
      values, before: {seed: figure}.
    """
    return estimate([values[seed] - before[seed] for seed in sorted(values.keys() & before.keys())])
