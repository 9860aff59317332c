import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cbalign.losses import codebook
from tests.peers import losses as peer
from tests.peers import transport as peer_transport

B, N, K, D, TAU = 3, 6, 5, 8, 0.1
NAMES = (
    "student_image",
    "student_text",
    "teacher_image",
    "teacher_text",
    "codes",
    "plan_image",
    "plan_text",
    "targets_image",
    "targets_text",
)


@pytest.fixture
def batch():
    r = np.random.default_rng(0)
    x = {name: r.normal(size=(size, D)) for name, size in zip(NAMES, (B, B, N, N, K))}
    for m in ("image", "text"):
        plan = peer_transport.ipot(peer_transport.cosine_cost(x[f"teacher_{m}"], x["codes"]))
        x[f"plan_{m}"] = plan
        x[f"targets_{m}"] = (plan / plan.sum(1, keepdims=True))[:B]
    return {name: jnp.asarray(x[name], jnp.float32) for name in NAMES}


def test_equals_formula(batch):
    want = peer.code_losses(*(np.asarray(batch[name], np.float64) for name in NAMES), TAU)
    got = jax.jit(lambda x: codebook.code_losses(**x, temperature=TAU))(batch)
    assert set(got) == {"ot", "i2p", "t2p"}
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    "term,reached", [("ot", {"codes"}), ("i2p", {"codes", "student_image"}), ("t2p", {"codes", "student_text"})]
)
def test_where_gradient_goes(batch, term, reached):
    grads = jax.grad(lambda x: codebook.code_losses(**x, temperature=TAU)[term])(batch)
    assert {name for name, g in grads.items() if np.abs(g).max() > 0} == reached


def test_gradient_of_codes_equals_finite_differences(batch):
    x = {name: np.asarray(batch[name], np.float64) for name in NAMES}
    grads = {
        t: jax.grad(lambda c, t=t: codebook.code_losses(**{**batch, "codes": c}, temperature=TAU)[t])(batch["codes"])
        for t in ("ot", "i2p", "t2p")
    }
    for i, j in ((0, 0), (2, 3), (4, 7)):
        sides = []
        for step in (1e-5, -1e-5):
            moved = {**x, "codes": x["codes"].copy()}
            moved["codes"][i, j] += step
            sides.append(peer.code_losses(*(moved[name] for name in NAMES), TAU))
        for t, g in grads.items():
            np.testing.assert_allclose(g[i, j], (sides[0][t] - sides[1][t]) / 2e-5, rtol=1e-3, atol=1e-5, err_msg=t)


def test_logits(batch):
    z, c = batch["student_image"], batch["codes"]
    want = (1 - peer_transport.cosine_cost(z, c)) / TAU
    np.testing.assert_allclose(codebook.code_logits(z, c, temperature=TAU), want, atol=1e-5)
    np.testing.assert_allclose(codebook.code_logits(5 * z, 2 * c, temperature=TAU), want, atol=1e-5)
    low = [a.astype(jnp.bfloat16) for a in (z, c)]
    exact = (1 - peer_transport.cosine_cost(*(np.asarray(a, np.float64) for a in low))) / TAU
    np.testing.assert_allclose(codebook.code_logits(*low, temperature=TAU), exact, atol=1e-5)
