"""What an exhausted memory is called."""

import jax.numpy as jnp
import numpy as np
import pytest

from cbalign.__main__ import main
from cbalign.errors import memory_error


def jax_allocates():
    return jnp.zeros(10**13).block_until_ready()


def numpy_allocates():
    return np.zeros(10**15)


@pytest.mark.parametrize("allocate", [jax_allocates, numpy_allocates])
def test_an_exhausted_memory_is_one_line_with_remedies(allocate, monkeypatch, capsys):
    monkeypatch.setattr("cbalign.cli.search.run", lambda args: allocate())
    assert main(["search", "--weights=icons", "x"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cbalign: out of memory (") and "train.microbatches" in line and "llocat" in line


def test_other_errors_are_not():
    for error in (ValueError("out of memory"), RuntimeError("RESOURCE_EXHAUSTED: too many requests")):
        assert memory_error(error) is None
