"""Collectives on a mapped axis in one process, against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cbalign.distributed import devices

VALUES = np.random.default_rng(0).normal(size=(4, 50)).astype(np.float32)


def mapped(function):
    return jax.vmap(function, axis_name=devices.AXIS)


def test_sums_and_maxima():
    np.testing.assert_allclose(mapped(devices.total)(VALUES), np.tile(VALUES.sum(0), (4, 1)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(mapped(devices.largest)(VALUES), np.tile(VALUES.max(0), (4, 1)))


@pytest.mark.parametrize("dtype, error", [("float32", 1e-6), ("bfloat16", 2**-7)])
def test_mean_of_gradients_in_a_dtype(dtype, error):
    found = mapped(lambda x: devices.mean_in({"a": x}, dtype)["a"])(VALUES)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.tile(VALUES.mean(0), (4, 1)), atol=error)
    assert (dtype == "bfloat16") == bool(np.any(np.abs(found[0] - VALUES.mean(0)) > 1e-4))
    program = str(jax.make_jaxpr(lambda x: devices.mean_in(x, dtype), axis_env=[(devices.AXIS, 4)])(VALUES[0]))
    assert ("bf16[50] = psum" in program) == (dtype == "bfloat16")


def test_own_part_covers_all_rows_once():
    rows = np.arange(1, 11, dtype=np.float32)
    parts = mapped(lambda _: devices.own_part({"x": jnp.asarray(rows)})["x"])(np.arange(4))
    np.testing.assert_array_equal(parts.reshape(-1), [*rows, 0, 0])


def test_one_device_leaves_everything_as_it_is():
    def all_of_them(x):
        return (
            devices.mean(x)
            + devices.total(x)
            + devices.largest(x)
            + devices.gather(x)[:50]
            + devices.own_part(x)
            + devices.mean_in(x, "bfloat16")
        )

    program = str(jax.make_jaxpr(all_of_them, axis_env=[(devices.AXIS, 1)])(VALUES[0]))
    assert not any(name in program for name in ("psum", "pmax", "all_gather", "bf16"))
