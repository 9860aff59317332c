import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy import stats

from cbalign.losses import masking
from tests.peers import losses as peer

PAD, CLS, MASK, VOCAB, LENGTH = 0, 1, 2, 50, 20


jitted_mask = jax.jit(masking.mask_tokens, static_argnames=("special_ids", "max_predictions"))


def token_ids(rows, seed=0):
    ids = np.random.default_rng(seed).integers(3, VOCAB, size=(rows, LENGTH))
    ids[:, 0] = CLS
    ids[:, -4:] = PAD
    return jnp.asarray(ids, jnp.int32)


def mask(ids, sample_index=None, max_predictions=LENGTH, seed=0, **options):
    index = jnp.arange(len(ids), dtype=jnp.int32) if sample_index is None else sample_index
    return jitted_mask(
        jax.random.key(seed),
        ids,
        sample_index=index,
        mask_id=MASK,
        vocab_size=VOCAB,
        special_ids=(PAD, CLS),
        max_predictions=max_predictions,
        **options,
    )


def test_shares():
    ids = token_ids(8000)
    got = jax.tree.map(np.asarray, mask(ids))
    rows, slots = np.nonzero(got["weights"])
    old = np.asarray(ids)
    positions = got["positions"][rows, slots]
    labels, new = old[rows, positions], got["ids"][rows, positions]
    np.testing.assert_array_equal(labels, got["labels"][rows, slots])
    assert not np.isin(labels, (PAD, CLS)).any()
    candidates = (~np.isin(old, (PAD, CLS))).sum()
    assert stats.binomtest(len(rows), candidates, 0.15).pvalue > 1e-4
    by_position = np.bincount(positions, minlength=LENGTH)[1:-4]
    assert stats.chisquare(by_position).pvalue > 1e-4
    # A random token equals the original, or is [MASK], once in VOCAB draws each.
    counts = [np.sum(new == MASK), np.sum(new == labels), np.sum((new != MASK) & (new != labels))]
    shares = np.array([0.8 + 0.1 / VOCAB, 0.1 + 0.1 / VOCAB, 0.1 * (VOCAB - 2) / VOCAB])
    assert stats.chisquare(counts, shares * len(rows)).pvalue > 1e-4
    random = new[(new != MASK) & (new != labels)]
    drawn = np.bincount(random, minlength=VOCAB)
    # Original tokens lie in 3..VOCAB-1, where one in VOCAB - 3 is left out as "unchanged"; 0 and 1 lose none.
    weights = np.array([1, 1, 0] + [1 - 1 / (VOCAB - 3)] * (VOCAB - 3))
    keep = weights > 0
    assert stats.chisquare(drawn[keep], weights[keep] / weights.sum() * len(random)).pvalue > 1e-4


def test_untouched_outside_the_slots_and_cap():
    ids = token_ids(500)
    got = jax.tree.map(np.asarray, mask(ids, max_predictions=2, probability=0.6))
    assert got["positions"].shape == got["labels"].shape == got["weights"].shape == (500, 2)
    assert got["ids"].dtype == np.int32 and got["weights"].dtype == np.float32
    assert got["weights"].sum(1).max() == 2
    for row in range(500):
        used = set(got["positions"][row][got["weights"][row] > 0])
        assert len(used) == got["weights"][row].sum()
        changed = set(np.flatnonzero(got["ids"][row] != np.asarray(ids)[row]))
        assert changed <= used
    unused = got["weights"] == 0
    assert (got["positions"][unused] == 0).all() and (got["labels"][unused] == 0).all()


def test_the_kept_subset_is_uniform():
    ids = token_ids(6000)
    got = mask(ids, max_predictions=3, probability=1.0)
    assert float(got["weights"].min()) == 1.0
    counts = np.bincount(np.ravel(got["positions"]), minlength=LENGTH)
    assert counts[0] == 0 and counts[-4:].sum() == 0
    # Drawn without replacement, the counts vary less than the test supposes: it errs on the side of passing.
    assert stats.chisquare(counts[1:-4]).pvalue > 1e-4


@pytest.mark.parametrize("max_predictions", [1, 30])
def test_nothing_selected_and_more_slots_than_tokens(max_predictions):
    ids = token_ids(4)
    got = mask(ids, max_predictions=max_predictions, probability=0.0)
    np.testing.assert_array_equal(got["ids"], ids)
    assert got["weights"].shape == (4, max_predictions) and float(got["weights"].sum()) == 0
    everything = mask(ids, max_predictions=max_predictions, probability=1.0)
    np.testing.assert_array_equal(everything["weights"].sum(1), min(max_predictions, LENGTH - 5))


def test_draw_depends_on_the_sample_not_on_the_device():
    ids = token_ids(8)
    index = jnp.array([40, 41, 42, 43, 7, 8, 9, 10], jnp.int32)
    whole = mask(ids, index)
    for rows in (slice(0, 4), slice(4, 8)):
        for name, part in mask(ids[rows], index[rows]).items():
            np.testing.assert_array_equal(part, whole[name][rows], err_msg=name)
    assert (np.asarray(mask(ids, index, seed=1)["ids"]) != np.asarray(whole["ids"])).any()
    assert (np.asarray(mask(ids, index + 1)["ids"]) != np.asarray(whole["ids"])).any()


@pytest.fixture
def predictions():
    r = np.random.default_rng(0)
    logits, teacher = (r.normal(size=(2, 3, 5)).astype(np.float32) * 2 for _ in range(2))
    weights = np.array([[1, 1, 0], [1, 0, 0]], np.float32)
    return logits, r.integers(0, 5, (2, 3)), weights, teacher


@pytest.mark.parametrize("alpha,total", [(0.0, None), (0.4, None), (1.0, None), (0.4, 2.5)])
def test_losses_equal_formula_on_a_shape_where_every_axis_differs(predictions, alpha, total):
    got = jax.jit(lambda *x: masking.mlm_losses(*x, alpha=alpha, total=total))(*predictions)
    want = peer.mlm(*predictions, alpha, total)
    assert set(got) == set(want)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-5, err_msg=name)


def test_hard_loss_equals_torch_and_soft_loss_is_kl_plus_entropy(predictions):
    logits, labels, weights, teacher = predictions
    kept = weights > 0
    want = torch.nn.functional.cross_entropy(torch.tensor(logits[kept]), torch.tensor(labels[kept])).item()
    alone = masking.mlm_losses(logits, labels, weights, alpha=0.4)
    np.testing.assert_allclose([alone["mlm"], alone["mlm_hard"]], want, rtol=1e-5)
    assert float(alone["mlm_soft"]) == 0
    p, q = (peer.softmax(x[kept]) for x in (teacher, logits))
    kl_plus_entropy = np.mean(stats.entropy(p, q, axis=-1) + stats.entropy(p, axis=-1))
    got = masking.mlm_losses(logits, labels, weights, teacher, alpha=0.4)
    np.testing.assert_allclose(got["mlm_soft"], kl_plus_entropy, rtol=1e-5)


def test_gradient(predictions):
    logits, labels, weights, teacher = predictions
    to_logits, to_teacher = jax.grad(lambda l, t: masking.mlm_losses(l, labels, weights, t, alpha=0.4)["mlm"], (0, 1))(
        jnp.asarray(logits), jnp.asarray(teacher)
    )
    want = peer.softmax(logits) - 0.6 * np.eye(5)[labels] - 0.4 * peer.softmax(teacher)
    np.testing.assert_allclose(to_logits, want * weights[..., None] / 3, atol=1e-6)
    np.testing.assert_array_equal(to_teacher, 0.0)


def test_no_masked_tokens(predictions):
    logits, labels, weights, teacher = predictions
    value, grad = jax.value_and_grad(lambda l: masking.mlm_losses(l, labels, 0 * weights, teacher, alpha=0.4)["mlm"])(
        jnp.asarray(logits)
    )
    assert float(value) == 0 and (np.asarray(grad) == 0).all()


def test_device_means_with_a_shared_total_give_the_global_mean(predictions):
    whole = masking.mlm_losses(*predictions, alpha=0.4)
    total = predictions[2].sum() / 2
    parts = [masking.mlm_losses(*(x[i : i + 1] for x in predictions), alpha=0.4, total=total) for i in range(2)]
    for name in whole:
        np.testing.assert_allclose((parts[0][name] + parts[1][name]) / 2, whole[name], rtol=1e-5)
