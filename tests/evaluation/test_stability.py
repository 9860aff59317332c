"""Measures of how much profiles move, on profiles whose movement is known."""

import numpy as np
import pytest
import scipy.special
import scipy.stats

from cbalign.evaluation.stability import compare, decorrelation, nearest_changed, relative_movement, softmax


def test_the_share_of_rows_with_another_largest_entry():
    before = np.array([[1.0, 2, 3], [3, 2, 1], [0, 5, 1], [-np.inf, 1, 0]])
    after = np.array([[1.0, 2, 3], [3, 2, 1], [9, 5, 1], [-np.inf, 0, 1]])
    assert nearest_changed(before, after) == 0.5


def test_rows_that_stay_do_not_move_and_rows_that_swap_move_as_far_as_others_are():
    p = np.random.default_rng(0).dirichlet(np.ones(5), 6)
    assert relative_movement(p, p) == 0
    assert relative_movement(p, np.roll(p, 3, axis=0)) == pytest.approx(1)


def test_movement_against_its_formula():
    rng = np.random.default_rng(1)
    p, q = rng.dirichlet(np.ones(4), 7), rng.dirichlet(np.ones(4), 7)
    total = lambda a, b: 0.5 * abs(a - b).sum()  # noqa: E731
    moved = np.mean([total(p[i], q[i]) for i in range(7)])
    spread = np.mean([(total(x[i], x[(i - 3) % 7])) for x in (p, q) for i in range(7)])
    assert relative_movement(p, q) == pytest.approx(moved / spread)


def test_alike_rows_have_no_spread():
    p = np.full((4, 3), 1 / 3)
    assert np.isnan(relative_movement(p, p))


def test_decorrelation_against_scipy_with_candidates_left_out():
    rng = np.random.default_rng(2)
    p = rng.normal(size=(5, 9))
    q = p + rng.normal(size=(5, 9))
    wanted = 1 - np.mean([scipy.stats.pearsonr(np.delete(p[i], i), np.delete(q[i], i))[0] for i in range(5)])
    for x in (p, q):
        np.fill_diagonal(x, -np.inf)
    assert decorrelation(p, q) == pytest.approx(wanted)


def test_softmax_against_scipy():
    scores = np.random.default_rng(3).normal(size=(3, 4)) * 50
    scores[0, 0] = -np.inf
    np.testing.assert_allclose(softmax(scores), scipy.special.softmax(scores, axis=1))


def test_all_measures_of_one_profile():
    rng = np.random.default_rng(4)
    before = {"similarities": rng.normal(size=(8, 5)), "distributions": rng.dirichlet(np.ones(5), 8)}
    assert compare(before, before) == {"changed": 0.0, "moved": 0.0, "decorrelated": pytest.approx(0, abs=1e-12)}
