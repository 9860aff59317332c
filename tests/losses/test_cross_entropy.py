import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from cbalign.losses.cross_entropy import soft_cross_entropy
from tests.peers import losses as peer


@pytest.mark.parametrize("shape", [(5,), (3, 7), (2, 3, 5)])
def test_equals_formula_and_torch(shape):
    r = np.random.default_rng(0)
    logits, targets = r.normal(size=shape) * 3, peer.softmax(r.normal(size=shape))
    got = soft_cross_entropy(jnp.array(logits), jnp.array(targets))
    assert got.shape == shape[:-1] and got.dtype == jnp.float32
    np.testing.assert_allclose(got, peer.cross_entropy(logits, targets), rtol=1e-5)
    flat = torch.nn.functional.cross_entropy(
        torch.tensor(logits.reshape(-1, shape[-1])), torch.tensor(targets.reshape(-1, shape[-1])), reduction="none"
    )
    np.testing.assert_allclose(np.ravel(got), flat.numpy(), rtol=1e-5)


def test_excluded_classes_give_neither_value_nor_gradient():
    logits, targets = jnp.array([[1.0, -jnp.inf, 2.0]]), jnp.array([[0.25, 0.0, 0.75]])
    expected = peer.cross_entropy(np.array([[1.0, 2.0]]), np.array([[0.25, 0.75]]))
    np.testing.assert_allclose(soft_cross_entropy(logits, targets), expected, rtol=1e-6)
    to_logits, to_targets = jax.grad(lambda l, t: soft_cross_entropy(l, t).sum(), (0, 1))(logits, targets)
    q = peer.softmax(np.array([1.0, 2.0]))
    np.testing.assert_allclose(to_logits, [[q[0] - 0.25, 0.0, q[1] - 0.75]], atol=1e-6)
    np.testing.assert_allclose(to_targets, [[-np.log(q[0]), 0.0, -np.log(q[1])]], atol=1e-6)


def test_low_precision_inputs_are_computed_in_float32():
    logits = jnp.array([[300.0, 1.0, 299.0]], jnp.bfloat16)
    targets = jnp.array([[0.5, 0.25, 0.25]], jnp.bfloat16)
    exact = peer.cross_entropy(np.array(logits, np.float64), np.array(targets, np.float64))
    np.testing.assert_allclose(soft_cross_entropy(logits, targets), exact, rtol=1e-6)
