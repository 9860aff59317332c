"""Each program is compiled once: what counts as the same program, and what the cache on disk keeps."""

import jax
import jax.numpy as jnp
import pytest

from cbalign.plan.ahead import Compiler
from cbalign.plan.chips import parse_topology


def scaled(by):
    return jax.jit(lambda x: by * jnp.sin(x) @ x)


def looped(turns):
    return jax.jit(lambda x: jax.lax.scan(lambda c, _: (c @ x, None), x, None, length=turns)[0])


def inputs(size):
    return (jax.ShapeDtypeStruct((size, size), jnp.float32),)


def test_programs_that_differ_in_constants_alone_are_one(tmp_path):
    said = []
    compiler = Compiler(parse_topology("H200:1"), cache=str(tmp_path), say=said.append)
    first, known = compiler.call(scaled(0.5), inputs(8), "a product")
    assert not known and first.fits and first.profile is None
    assert first.flops == first.float32_flops == 2 * 8**3 and first.dense_bytes == 3 * 8 * 8 * 4
    assert compiler.call(scaled(0.25), inputs(8), "another weight") == (first, True)
    assert not compiler.call(scaled(0.5), inputs(16), "another shape")[1]
    three, known = compiler.call(looped(3), inputs(8), "a loop")
    assert not known and three.flops == 3 * 2 * 8**3
    four, known = compiler.call(looped(4), inputs(8), "a longer loop")
    assert not known and four.flops == 4 * 2 * 8**3
    assert said == [
        f"compiling {what} for H200:1 ..." for what in ("a product", "another shape", "a loop", "a longer loop")
    ]
    # A later command reads what an earlier one found; without the folder it compiles.
    later = Compiler(parse_topology("H200:1"), cache=str(tmp_path))
    assert later.call(scaled(0.5), inputs(8), "a product") == (first, True)
    assert not Compiler(parse_topology("H200:1")).call(scaled(0.5), inputs(8), "a product")[1]
    # Another effort is another program.
    assert not Compiler(parse_topology("H200:1"), cache=str(tmp_path), quick=True).call(scaled(0.5), inputs(8), "x")[1]


def test_memory_of_arguments():
    found, _ = Compiler(parse_topology("H200:1")).call(scaled(0.5), inputs(64), "a product")
    assert found.argument_bytes == 64 * 64 * 4 and found.peak_bytes >= 2 * 64 * 64 * 4
    assert found.seconds > 0 and found.collectives == pytest.approx([])
