import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from cbalign.losses import contrastive
from tests.peers import losses as peer
from tests.peers.transport import unit

B, M, D, TAU = 3, 11, 8, 0.07
OWN = np.array([4, 1, 2])


@pytest.fixture
def batch():
    r = np.random.default_rng(0)
    sizes = dict(student_image=B, student_text=B, teacher_image=B, teacher_text=B, keys_image=M, keys_text=M)
    x = {name: jnp.asarray(unit(r.normal(size=(size, D))), jnp.float32) for name, size in sizes.items()}
    for m in ("image", "text"):
        x[f"keys_{m}"] = x[f"keys_{m}"].at[OWN].set(x[f"teacher_{m}"])
    return x


HARD = np.eye(M, dtype=np.float32)[OWN]


def losses(batch, alpha=0.4, temperature=TAU, hard=HARD, **options):
    return contrastive.contrastive_losses(
        **batch, hard_targets=jnp.asarray(hard), temperature=temperature, alpha=alpha, **options
    )


def expected(batch, term, alpha, valid=None, hard=HARD):
    name = {"i": "image", "t": "text"}
    x = {k: np.asarray(v, np.float64) for k, v in batch.items()}
    query, key = name[term[0]], name[term[2]]
    return peer.contrast(x[f"student_{query}"], x[f"teacher_{query}"], x[f"keys_{key}"], hard, TAU, alpha, valid)


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_equals_formula(batch, alpha):
    got = jax.jit(lambda x, a: losses(x, a))(batch, alpha)
    assert set(got) == {"i2t", "t2i", "i2i", "t2t"}
    for term, value in got.items():
        np.testing.assert_allclose(value, expected(batch, term, alpha), rtol=1e-5, err_msg=term)


def test_alpha_zero_is_info_nce_and_alpha_one_is_cross_entropy_to_the_teacher(batch):
    x = {k: torch.tensor(np.asarray(v)) for k, v in batch.items()}
    scores, teacher = (x[f"{who}_image"] @ x["keys_text"].T / TAU for who in ("student", "teacher"))
    ce = torch.nn.functional.cross_entropy
    np.testing.assert_allclose(losses(batch, 0.0)["i2t"], ce(scores, torch.tensor(OWN)).item(), rtol=1e-5)
    np.testing.assert_allclose(losses(batch, 1.0)["i2t"], ce(scores, teacher.softmax(-1)).item(), rtol=1e-5)


def test_by_hand():
    # Two queries, four keys, logits 0 or ln 2: probabilities are k / 5 for one doubled key.
    keys = jnp.eye(4)
    query = jnp.log(2.0) * jnp.eye(4)[:2]
    teacher = jnp.zeros((2, 4))
    got = contrastive.contrastive_losses(
        student_image=query,
        student_text=query,
        teacher_image=teacher,
        teacher_text=teacher,
        keys_image=keys,
        keys_text=keys,
        hard_targets=keys[:2],
        temperature=1.0,
        alpha=0.4,
    )
    # y = 0.4 / 4 everywhere + 0.6 at the own key; q = 2/5 there and 1/5 elsewhere.
    np.testing.assert_allclose(list(got.values()), [-0.7 * np.log(2 / 5) - 0.3 * np.log(1 / 5)] * 4, rtol=1e-6)


def test_terms_and_hard_intra_targets(batch):
    got = losses(batch, soft_intra=False, terms=("t2i", "t2t", "i2i"))
    assert list(got) == ["t2i", "t2t", "i2i"]
    for term, alpha in (("t2i", 0.4), ("t2t", 0.0), ("i2i", 0.0)):
        np.testing.assert_allclose(got[term], expected(batch, term, alpha), rtol=1e-5)
    with pytest.raises(ValueError, match="i2v"):
        losses(batch, terms=("i2v",))


def test_invalid_keys_have_no_influence(batch):
    valid = np.ones(M, bool)
    valid[[0, 7, 10]] = False

    def total(x):
        return sum(losses(x, key_valid=jnp.asarray(valid)).values())

    for term, value in losses(batch, key_valid=jnp.asarray(valid)).items():
        np.testing.assert_allclose(value, expected(batch, term, 0.4, valid), rtol=1e-5)
    other = {k: v.at[jnp.array([0, 7, 10])].set(50.0) if k.startswith("keys") else v for k, v in batch.items()}
    assert total(batch) == total(other)
    for a, b in zip(*(jax.tree.leaves(jax.grad(total)(x)) for x in (batch, other))):
        assert np.isfinite(a).all()
        np.testing.assert_array_equal(a, b)


def test_gradient_reaches_the_students_queries_only(batch):
    for term, reached in (
        ("i2t", "student_image"),
        ("t2i", "student_text"),
        ("i2i", "student_image"),
        ("t2t", "student_text"),
    ):
        grads = jax.grad(lambda x: losses(x)[term])(batch)
        assert {k for k, g in grads.items() if np.abs(g).max() > 0} == {reached}
        name = {"i": "image", "t": "text"}
        x = {k: np.asarray(v, np.float64) for k, v in batch.items()}
        keys = x[f"keys_{name[term[2]]}"]
        q, p = (peer.softmax(x[f"{who}_{name[term[0]]}"] @ keys.T / TAU) for who in ("student", "teacher"))
        np.testing.assert_allclose(grads[reached], (q - 0.4 * p - 0.6 * HARD) @ keys / TAU / B, rtol=1e-3, atol=1e-5)


def test_temperature_gets_gradient_from_the_students_logits_only(batch):
    x = {k: np.asarray(v, np.float64) for k, v in batch.items()}
    y = 0.4 * peer.softmax(x["teacher_image"] @ x["keys_text"].T / TAU) + 0.6 * HARD
    sides = [peer.cross_entropy(x["student_image"] @ x["keys_text"].T / (TAU + s), y).mean() for s in (1e-6, -1e-6)]
    got = jax.grad(lambda tau: losses(batch, temperature=tau)["i2t"])(TAU)
    np.testing.assert_allclose(got, (sides[0] - sides[1]) / 2e-6, rtol=1e-3)


def test_bfloat16_features_are_multiplied_in_float32(batch):
    low = {k: v.astype(jnp.bfloat16) for k, v in batch.items()}
    for term, value in losses(low).items():
        np.testing.assert_allclose(value, expected(low, term, 0.4), rtol=1e-5)
    rough = (low["student_image"] @ low["keys_text"].T).astype(jnp.float32) / TAU
    rough = peer.cross_entropy(np.asarray(rough), HARD).mean()
    assert abs(rough / float(losses(low, 0.0)["i2t"]) - 1) > 1e-4


def test_key_targets():
    queries, own = jnp.array([5, 7, 5]), jnp.array([0, 1, 2])
    keys = jnp.array([5, 7, 5, -1, 7, 7, -1, 9])
    np.testing.assert_array_equal(contrastive.key_targets(queries, keys, own, joint_positives=False), np.eye(8)[:3])
    want = np.array([[1 / 2, 0, 1 / 2, 0, 0, 0, 0, 0], [0, 1 / 3, 0, 0, 1 / 3, 1 / 3, 0, 0]], np.float32)[[0, 1, 0]]
    np.testing.assert_allclose(contrastive.key_targets(queries, keys, own, joint_positives=True), want)
    # An id of -1 marks an empty slot, never a positive, whatever the query.
    got = contrastive.key_targets(jnp.array([-1]), keys, jnp.array([3]), joint_positives=True)
    np.testing.assert_array_equal(got, np.eye(8)[3:4])


def test_joint_positives_in_the_loss(batch):
    hard = HARD.copy()
    hard[0] = 0
    hard[0, [4, 6]] = 0.5
    np.testing.assert_allclose(losses(batch, hard=hard)["t2i"], expected(batch, "t2i", 0.4, hard=hard), rtol=1e-5)


def test_chance_level():
    assert abs(contrastive.chance_level(65536 + 64) - 11.0913) < 1e-4
    zeros = {f"{who}_{m}": jnp.zeros((B, D)) for who in ("student", "teacher") for m in ("image", "text")}
    zeros |= {f"keys_{m}": jnp.ones((M, D)) for m in ("image", "text")}
    np.testing.assert_allclose(list(losses(zeros).values()), np.log(M), rtol=1e-6)
