import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy import stats

from cbalign.losses import matching
from tests.peers import losses as peer

B, DRAWS = 8, 20000


sample = jax.jit(matching.sample_negatives, static_argnames="group_size")


def similarities(seed=0, b=B, scale=1.0):
    r = np.random.default_rng(seed)
    return [jnp.asarray(r.normal(size=(b, b)) * scale, jnp.float32) for _ in range(2)]


@functools.partial(jax.jit, static_argnums=3)
def draw_many(i2t, t2i, ids, group_size):
    def one(key):
        return matching.sample_negatives(key, i2t, t2i, ids, group_size=group_size)

    return jax.vmap(one)(jax.random.split(jax.random.key(1), DRAWS))


@pytest.mark.parametrize("group_size", [4, 8])
def test_frequencies_follow_the_softmax_inside_the_group(group_size):
    i2t, t2i = similarities()
    ids = np.array([0, 1, 2, 1, 4, 5, 6, 7])
    got = draw_many(i2t, t2i, jnp.asarray(ids), group_size)
    assert float(got["no_candidate"].max()) == 0
    for kind, logits in (("image", t2i), ("text", i2t)):
        for row in range(B):
            start = row // group_size * group_size
            allowed = [j for j in range(start, start + group_size) if ids[j] != ids[row]]
            counts = np.bincount(np.asarray(got[kind][:, row]), minlength=B)
            assert counts[allowed].sum() == DRAWS
            p = peer.softmax(np.asarray(logits, np.float64)[row, allowed])
            assert stats.chisquare(counts[allowed], p * DRAWS).pvalue > 1e-4, (kind, row)


def test_peaked_similarities():
    i2t, t2i = (1e4 * jnp.eye(B) + s for s in similarities(scale=1e3))
    got = draw_many(i2t, t2i, jnp.arange(B), B)
    for kind, logits in (("image", t2i), ("text", i2t)):
        best = np.argmax(np.asarray(logits) - 1e9 * np.eye(B), axis=1)
        np.testing.assert_array_equal(got[kind], np.broadcast_to(best, (DRAWS, B)))


def test_group_of_one_id_falls_back_to_uniform_over_the_others():
    i2t, t2i = similarities(scale=5.0)
    got = draw_many(i2t, t2i, jnp.array([3, 3, 3, 3, 0, 1, 2, 3]), 4)
    np.testing.assert_array_equal(got["no_candidate"], 0.5)
    for kind in ("image", "text"):
        for row in range(4):
            counts = np.bincount(np.asarray(got[kind][:, row]), minlength=B)
            others = [j for j in range(4) if j != row]
            assert counts[others].sum() == DRAWS and stats.chisquare(counts[others]).pvalue > 1e-4


def test_draw_does_not_depend_on_the_number_of_devices():
    i2t, t2i = similarities()
    ids = jnp.array([0, 1, 1, 3, 4, 5, 6, 7])
    for seed in range(5):
        rng = jax.random.key(seed)
        one = sample(rng, i2t, t2i, ids, group_size=4)
        for device in range(2):
            rows = slice(4 * device, 4 * device + 4)
            own = sample(
                rng, i2t[rows, rows], t2i[rows, rows], ids[rows], group_size=4, group_index_offset=jnp.int32(device)
            )
            for kind in ("image", "text"):
                np.testing.assert_array_equal(own[kind] + 4 * device, one[kind][rows])


def test_types_gradient_and_errors():
    i2t, t2i = similarities()
    got = sample(jax.random.key(0), i2t, t2i, jnp.arange(B), group_size=B)
    assert got["image"].dtype == got["text"].dtype == jnp.int32 and got["image"].shape == (B,)

    def gathered(s):
        index = sample(jax.random.key(0), s, s, jnp.arange(B), group_size=B)["text"]
        return jnp.sum(jnp.arange(8.0)[index])

    np.testing.assert_array_equal(jax.grad(gathered)(i2t), 0.0)
    for size in (1, 3):
        with pytest.raises(ValueError, match="group"):
            matching.sample_negatives(jax.random.key(0), i2t, t2i, jnp.arange(B), group_size=size)


def test_matching_loss():
    r = np.random.default_rng(0)
    logits, labels = r.normal(size=(9, 2)).astype(np.float32), np.array([1] * 3 + [0] * 6)
    got = matching.matching_loss(jnp.asarray(logits), jnp.asarray(labels))
    want = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(labels)).item()
    np.testing.assert_allclose(got["itm"], want, rtol=1e-5)
    np.testing.assert_allclose(got["itm_accuracy"], np.mean((logits[:, 1] > logits[:, 0]) == labels), rtol=1e-6)


def test_prior_is_the_loss_of_the_best_constant_predictor():
    assert abs(matching.MATCHING_PRIOR - stats.entropy([1 / 3, 2 / 3])) < 1e-12
    logits = jnp.broadcast_to(jnp.log(jnp.array([2 / 3, 1 / 3])), (9, 2))
    got = matching.matching_loss(logits, jnp.array([1] * 3 + [0] * 6))
    np.testing.assert_allclose(got["itm"], 0.6365, atol=1e-4)
    np.testing.assert_allclose(got["itm_accuracy"], 2 / 3, rtol=1e-6)
