"""FLOPs of matrix products against XLA's own count where it has one, and loops by hand."""

import jax
import jax.numpy as jnp
import pytest

from cbalign.plan.flops import product_flops, products


def counted(function, *shapes):
    return product_flops(jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)))


@pytest.mark.parametrize(
    "function, shapes",
    [
        (lambda a, b: a @ b, ((64, 96), (96, 128))),
        (lambda q, k: jnp.einsum("bqhd,bkhd->bhqk", q, k), ((2, 32, 4, 16), (2, 48, 4, 16))),
        (lambda a, b: jax.jit(lambda x: (x @ b) @ b)(a), ((40, 64), (64, 64))),
    ],
)
def test_products_are_as_many_as_xla_counts(function, shapes):
    lowered = jax.jit(function).lower(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes))
    assert counted(function, *shapes) == pytest.approx(lowered.compile().cost_analysis()["flops"], rel=1e-6)


def test_a_gradient_is_two_more_products():
    def value(w, x):
        return jnp.sum(jnp.sin(x @ w))

    forward = 2 * 8 * 32 * 64
    assert counted(value, (32, 64), (8, 32)) == forward
    assert counted(jax.value_and_grad(value, argnums=(0, 1)), (32, 64), (8, 32)) == 3 * forward


def test_loops_count_as_often_as_they_run():
    def scanned(a, b):
        return jax.lax.scan(lambda x, _: (x @ b, None), a, None, length=7)[0]

    assert counted(scanned, (4, 8), (8, 8)) == 7 * 2 * 4 * 8 * 8


def test_of_branches_the_dearest_counts():
    def branched(a, b):
        return jax.lax.cond(a[0, 0] > 0, lambda: a @ b @ b, lambda: a @ b)

    assert counted(branched, (4, 8), (8, 8)) == 2 * 2 * 4 * 8 * 8


def test_rematerialised_products_count_again():
    def loss(a, b, wrap):
        return jnp.sum(wrap(lambda x: jnp.sin(x @ b) @ b)(a))

    plain = counted(jax.grad(lambda a, b: loss(a, b, lambda f: f)), (4, 8), (8, 8))
    assert counted(jax.grad(lambda a, b: loss(a, b, jax.checkpoint)), (4, 8), (8, 8)) > plain


def test_float32_products_and_the_bytes_of_linear_layers_are_told_apart():
    def mixed(x, w, q):
        half = jnp.matmul(x.astype(jnp.bfloat16), w.astype(jnp.bfloat16))
        return half, jnp.einsum("bqd,bkd->bqk", q, q), x @ w

    shapes = ((8, 32), (32, 16), (4, 6, 32))
    found = products(jax.make_jaxpr(mixed)(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)))
    layer, attention = 2 * 8 * 32 * 16, 2 * 4 * 6 * 6 * 32
    assert found.flops == 2 * layer + attention and found.float32_flops == layer + attention
    numbers = 8 * 32 + 32 * 16 + 8 * 16
    assert found.dense_bytes == 2 * numbers + 4 * numbers  # the product with a batch dimension is left out
