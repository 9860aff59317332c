"""The stored gradient of the residual stream: the identity in values and gradients, and work linear in the depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cbalign.models.residual import store_gradient
from cbalign.models.vit import VisionTransformer


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("first", [0.5, 0.0, -3e38, np.inf, np.nan])
def test_identity(dtype, first):
    """Whatever stands in the stream's first element, from which the loop's length is made."""
    rng = np.random.default_rng(0)
    x, weights = (jnp.asarray(rng.normal(size=(2, 3, 4)), dtype) for _ in range(2))
    x = x.at[0, 0, 0].set(first)
    value, pull = jax.vjp(jax.jit(store_gradient), x)
    np.testing.assert_array_equal(np.float32(value), np.float32(x))
    np.testing.assert_array_equal(np.float32(pull(weights)[0]), np.float32(weights))


def gradient_of(depth: int):
    model = VisionTransformer(16, 8, 16, depth, 2)
    image = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), image)
    return jax.jit(jax.grad(lambda params, image: model.apply(params, image).sum())).trace(params, image)


def additions(depth: int) -> int:
    """Additions in the compiled gradient, each counted once in every fusion that computes it."""
    return gradient_of(depth).lower(lowering_platforms=("cpu",)).compile().as_text().count(" add(")


@pytest.mark.slow
def test_work_grows_with_the_depth_and_not_its_square():
    four, eight, twelve = (additions(depth) for depth in (4, 8, 12))
    assert twelve - eight < 1.1 * (eight - four)


@pytest.mark.parametrize("platform, loops", [("cpu", 4), ("tpu", 0), ("cuda", 0)])
def test_loops_stand_on_cpus_alone(platform, loops):
    text = gradient_of(2).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.while") == loops
