"""Intervals over seeds against scipy's."""

import numpy as np
import pytest
from scipy import stats

from cbalign.experiments.statistics import estimate, paired_difference


@pytest.mark.parametrize("count", [2, 3, 5, 30])
def test_interval_is_students(count):
    values = np.random.default_rng(count).normal(20, 3, count)
    found = estimate(values)
    low, high = stats.t.interval(0.95, count - 1, loc=np.mean(values), scale=stats.sem(values))
    assert found.count == count and found.mean == pytest.approx(np.mean(values))
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high))


def test_one_value_has_no_interval_and_none_is_nothing():
    assert estimate([3.0]).half_width is None and not estimate([3.0]).clear_of_zero
    assert estimate([]) is None


def test_paired_difference_is_that_of_scipys_paired_test():
    rng = np.random.default_rng(0)
    before = dict(enumerate(rng.normal(30, 5, 6)))
    after = {seed: value + rng.normal(1, 0.5) for seed, value in before.items()}
    found = paired_difference(after, before)
    test = stats.ttest_rel(list(after.values()), list(before.values()))
    interval = test.confidence_interval(0.95)
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx(
        (interval.low, interval.high)
    )
    assert found.clear_of_zero == (test.pvalue < 0.05)


def test_only_seeds_of_both_are_compared():
    found = paired_difference({0: 1.0, 1: 5.0, 2: 9.0}, {1: 4.0, 2: 7.0, 3: 100.0})
    assert (found.count, found.mean) == (2, 1.5)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
