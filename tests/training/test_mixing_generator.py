"""The bits are even, independent of one another and of neighbouring keys', and a function of key and place alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cbalign.training.mixing_generator import with_generator

KEYS = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(3), i))(jnp.arange(64))


@pytest.fixture(scope="module")
def words():
    """[64 keys, 2^14 words]."""
    return np.asarray(jax.jit(jax.vmap(lambda key: jax.random.bits(key, (128, 128))))(with_generator(KEYS, "mixing")))


def test_every_bit_is_even_and_independent_of_the_others(words):
    bits = np.unpackbits(words.reshape(-1, 1).view(np.uint8), axis=1).astype(np.float64)
    count = len(bits)
    assert np.abs(bits.mean(0) - 0.5).max() < 5 * 0.5 / count**0.5
    correlation = np.corrcoef(bits.T) - np.eye(32)
    assert np.abs(correlation).max() < 5 / count**0.5


def test_values_are_uniform(words):
    counts = np.histogram(words, bins=np.linspace(0, 2**32, 1025))[0]
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("lag", [1, 2, 127, 128, 1000])
def test_neither_neighbours_nor_keys_are_correlated(words, lag):
    kept = (words < 0.1 * 2**32).reshape(64, -1).astype(np.float64)
    size = kept.shape[1] - lag
    for first, second in ((kept[:, lag:], kept[:, :-lag]), (kept[1:, lag:], kept[:-1, :-lag])):
        found = np.corrcoef(first.ravel(), second.ravel())[0, 1]
        assert abs(found) < 5 / (len(first) * size) ** 0.5
    # The number of dropped values of a row is binomial: its variance is that of independent draws.
    assert kept.mean(1).var() == pytest.approx(0.09 / kept.shape[1], rel=0.8)


def test_a_mask_depends_on_key_and_place_alone():
    draw = lambda key: jax.random.bernoulli(key, 0.9, (5, 7))  # noqa: E731
    keys = with_generator(KEYS, "mixing")
    together = jax.jit(jax.vmap(draw))(keys)
    for i in (0, 13, 63):
        np.testing.assert_array_equal(together[i], draw(keys[i]))
    folded = jax.random.fold_in(keys[5], 2)
    np.testing.assert_array_equal(jax.random.key_data(folded), jax.random.key_data(jax.random.fold_in(KEYS[5], 2)))
    assert np.any(draw(folded) != together[5])
    assert np.any(together[0] != draw(KEYS[0])) and with_generator(KEYS, "threefry") is KEYS
