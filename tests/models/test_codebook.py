"""Sparsemax and mixtures of codes against a root finder, numpy's formula and numerical gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from cbalign.models import codebook
from tests.peers import mixture as peer

sparsemax = jax.jit(codebook.sparsemax)


def projected(x):
    """The nearest point of the simplex: max(x - threshold, 0), whose threshold a root finder makes sum to 1.

    These are the conditions of optimality (Held et al., "Validation of subgradient optimization", 1974). A solver of
    constrained problems (SLSQP) finds the same, but on some machines ends at its last digits without saying success.
    """
    x = np.asarray(x, np.float64)
    threshold = scipy.optimize.brentq(lambda t: np.maximum(x - t, 0).sum() - 1, x.min() - 1, x.max(), xtol=1e-14)
    return np.maximum(x - threshold, 0)


@pytest.mark.parametrize("scale", [0.02, 0.5, 3.0])
def test_sparsemax_is_the_projection_on_the_simplex(scale):
    x = (scale * np.random.default_rng(0).normal(size=(12, 9))).astype(np.float32)
    got = sparsemax(x)
    np.testing.assert_allclose(got, [projected(row) for row in x], atol=2e-6)
    np.testing.assert_allclose(got, peer.sparsemax(x), atol=2e-6)


def test_sparsemax_of_many_codes_ties_and_large_scores():
    r = np.random.default_rng(1)
    rows = [
        r.normal(size=4000),
        np.zeros(4000),
        np.concatenate([np.ones(4), np.zeros(3996)]),
        np.round(r.normal(size=4000)),
        1e4 + r.normal(size=4000),
    ]
    rows = np.array(rows, np.float32)
    got = np.asarray(sparsemax(rows))
    np.testing.assert_allclose(got, peer.sparsemax(rows), atol=1e-5)
    np.testing.assert_allclose(got.sum(axis=-1), 1, atol=1e-5)
    assert got.min() == 0 and np.count_nonzero(got[0]) < 40 and np.count_nonzero(got[1]) == 4000
    np.testing.assert_allclose(got[2, :4], 0.25, atol=1e-6)


def test_sparsemax_has_the_gradient_of_the_projection():
    r = np.random.default_rng(2)
    x, direction = r.normal(size=(6, 7)), r.normal(size=(6, 7))
    got = jax.jit(jax.grad(lambda x: jnp.sum(codebook.sparsemax(x) * direction)))(jnp.asarray(x, jnp.float32))
    step = 1e-6
    for i, j in np.ndindex(*x.shape):
        moved = step * (np.arange(7) == j)
        numerical = (peer.sparsemax(x[i] + moved) - peer.sparsemax(x[i] - moved)) @ direction[i] / (2 * step)
        assert got[i, j] == pytest.approx(numerical, abs=1e-4), (i, j)


@pytest.mark.parametrize("temperature", [0.03, 0.1, 1.0])
def test_mixture_and_its_gradient_follow_the_formula(temperature):
    r = np.random.default_rng(3)
    z, codes, direction = peer.unit(r.normal(size=(3, 6))), peer.unit(r.normal(size=(11, 6))), r.normal(size=(3, 6))

    def inner(z, codes):
        z, codes = codebook.l2_normalise(z), codebook.l2_normalise(codes)
        return jnp.sum(codebook.code_mixture(z, codes, temperature=temperature) * direction)

    inputs = jnp.asarray(z, jnp.float32), jnp.asarray(codes, jnp.float32)
    got = codebook.code_mixture(*inputs, temperature=temperature)
    np.testing.assert_allclose(got, peer.mixture(z, codes, temperature), atol=1e-5)
    for side, gradient in enumerate(jax.jit(jax.grad(inner, (0, 1)))(*inputs)):
        for place in np.ndindex(*gradient.shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = [z.copy(), codes.copy()]
                moved[side][place] += step
                ends.append(np.sum(peer.mixture(*moved, temperature) * direction))
            assert gradient[place] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=2e-3, rel=1e-3), (side, place)


def test_a_low_temperature_leaves_the_nearest_code():
    r = np.random.default_rng(4)
    z, codes = (jnp.asarray(peer.unit(r.normal(size=(n, 8))), jnp.float32) for n in (5, 20))
    nearest = codes[jnp.argmax(z @ codes.T, axis=1)]
    np.testing.assert_allclose(codebook.code_mixture(z, codes, temperature=1e-4), nearest, atol=1e-6)
