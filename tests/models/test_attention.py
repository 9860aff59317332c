"""GELU against PyTorch's; projected contexts and selected positions against the whole computation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy.special import erfc

from cbalign.models.attention import gelu
from cbalign.models.bert import BertLayers

VALUES = np.concatenate([np.linspace(-12, 12, 40_001), [0.0, -0.0, 1e-30, -1e-30, 60.0, -60.0]]).astype(np.float32)


def test_gelu_is_pytorchs():
    """Both round 1 + erf, so they agree to two units of float32 at 1, times x / 2; with the exact function likewise."""
    x = torch.tensor(VALUES, requires_grad=True)
    y = torch.nn.functional.gelu(x)
    y.sum().backward()
    np.testing.assert_allclose(jax.jit(gelu)(VALUES), y.detach(), rtol=3e-7, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(gelu))(VALUES), x.grad, rtol=1e-6, atol=1e-6)
    wide = VALUES.astype(np.float64)
    np.testing.assert_allclose(jax.jit(gelu)(VALUES), 0.5 * wide * erfc(-wide * np.sqrt(0.5)), rtol=3e-7, atol=1e-6)


def test_gelu_of_bfloat16_is_rounded_once():
    x = torch.tensor(VALUES[:-6:100], dtype=torch.bfloat16)
    found = jax.jit(gelu)(jnp.asarray(x.float().numpy(), jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    theirs = torch.nn.functional.gelu(x).float().numpy()
    # In bfloat16 throughout, 1 + erf(-2) would be off by a tenth.
    np.testing.assert_allclose(np.asarray(found, np.float32), theirs, rtol=2**-7, atol=1e-6)


@pytest.fixture(scope="module")
def layers():
    rng = np.random.default_rng(0)
    x, image = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 6, 16), (3, 5, 24)))
    mask = np.arange(6) < np.array([[6], [4], [2]])
    stack = BertLayers(16, depth=2, heads=4, cross_attention=True, init_std=0.3)
    variables = jax.jit(stack.init)(jax.random.key(0), x, mask, image)
    return stack, variables, x, mask, image


def apply(stack, variables, *arguments, **options):
    """Compiled as a whole, which takes less than its operations one by one."""
    return jax.jit(functools.partial(stack.apply, **options))(variables, *arguments)


def test_a_context_may_be_projected_before(layers):
    stack, variables, x, mask, image = layers
    context = apply(stack, variables, image, method="keys_and_values")
    assert jax.tree.map(jnp.shape, context) == (((3, 5, 4, 4),) * 2,) * 2
    np.testing.assert_allclose(
        apply(stack, variables, x, mask, context), apply(stack, variables, x, mask, image), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("remat", [False, True])
def test_states_at_some_positions(layers, remat):
    stack, variables, x, mask, image = layers
    whole = apply(stack, variables, x, mask, image)
    stack = stack.clone(remat=remat)
    some = np.array([[5, 0, 3], [1, 1, 0], [0, 0, 0]], np.int32)
    found = apply(stack, variables, x, mask, image, positions=jnp.asarray(some))
    np.testing.assert_allclose(found, np.take_along_axis(np.asarray(whole), some[:, :, None], 1), rtol=1e-4, atol=1e-5)
    first = apply(stack, variables, x, mask, image, positions=1)
    np.testing.assert_allclose(first, whole[:, :1], rtol=1e-4, atol=1e-5)
