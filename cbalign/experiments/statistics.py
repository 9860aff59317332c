"""Means over seeds with an interval, and paired differences."""

import dataclasses
import math
from collections.abc import Iterable, Mapping

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over seeds with Student's interval.

    Attributes:
      mean: of the values.
      half_width: of the interval of `CONFIDENCE` around the mean; None for a single value.
      count: number of values.
    """

    mean: float
    half_width: float | None
    count: int

    @property
    def clear_of_zero(self) -> bool:
        """Whether the interval excludes 0: as a difference, one that chance alone rarely makes."""
        return self.half_width is not None and abs(self.mean) > self.half_width


def estimate(values: Iterable[float]) -> Estimate | None:
    """Mean and two-sided t interval, mean ± t(n - 1) s / sqrt(n) with s the standard deviation of the sample.

    Args:
      values: one a seed.

    Returns:
      None for no values.
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
      values: {seed: figure}.
      before: the same of what they are compared with.
    """
    return estimate([values[seed] - before[seed] for seed in sorted(values.keys() & before.keys())])
