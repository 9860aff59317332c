"""Names of chips and pods, as the cloud's documents have them."""

import pytest

from cbalign.errors import UserError
from cbalign.plan.chips import CHIPS, GIB, parse_topology


# (name, chips, JAX devices, bytes of a device, as it is written)
@pytest.mark.parametrize(
    "text, chips, devices, memory, canonical",
    [
        ("v2-8", 4, 8, 8 * GIB, "v2:2x2"),
        ("v3-8", 4, 8, 16 * GIB, "v3:2x2"),
        ("v3-32", 16, 32, 16 * GIB, "v3:4x4"),
        ("v4-8", 4, 4, 32 * GIB, "v4:2x2x1"),
        ("v4-32", 16, 16, 32 * GIB, "v4:2x2x4"),
        ("v4:2x2x2", 8, 8, 32 * GIB, "v4:2x2x2"),
        ("v4-128", 64, 64, 32 * GIB, "v4:4x4x4"),
        ("v5litepod-64", 64, 64, 16 * GIB, "v5e:8x8"),
        ("v5e-64", 64, 64, 16 * GIB, "v5e:8x8"),
        ("v5p-8", 4, 4, 95 * GIB, "v5p:2x2x1"),
        ("v6e:4x4", 16, 16, 32 * GIB, "v6e:4x4"),
        ("h200:8", 8, 8, 141 * 10**9, "H200:8"),
        ("A100:1", 1, 1, 80 * 10**9, "A100:1"),
    ],
)
def test_names_are_read(text, chips, devices, memory, canonical):
    topology = parse_topology(text)
    assert (topology.chips, topology.devices, topology.memory_bytes) == (chips, devices, memory)
    assert str(topology) == canonical and parse_topology(canonical) == topology
    assert topology.peak_flops * topology.devices == pytest.approx(CHIPS[topology.chip.name].peak_flops * chips)


@pytest.mark.parametrize(
    "text, told",
    [
        ("v9-8", "chips are v2, v3"),
        ("v4", "CHIP:SHAPE"),
        ("v4-9", "there are v4-8, v4-16"),
        ("v4:4x4", "mesh of 3 dimensions"),
        ("v5e:2x2x2", "mesh of 2 dimensions"),
        ("H100:2x4", "write H100:8"),
        ("v4:2x0x2", "is not a valid shape"),
    ],
)
def test_mistakes_are_named(text, told):
    with pytest.raises(UserError, match=told):
        parse_topology(text)
