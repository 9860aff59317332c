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


@pytest.mark.parametrize(
    "text, devices, links",
    [
        ("v4-8", 4, 2),  # 2x2x1: one link along each of two axes
        ("v4-32", 4, 3),  # 2x2x4
        ("v4-128", 4, 6),  # 4x4x4: every axis is a ring
        ("v5e-8", 8, 2),  # one host
        ("v5e-64", 4, 2),  # 8x8: no ring
        ("v5e-256", 4, 4),  # 16x16
        ("v3-8", 8, 2),
        ("v5e-1", 1, 0),
    ],
)
def test_processes_and_links(text, devices, links):
    topology = parse_topology(text)
    assert topology.local_devices == devices
    assert topology.link_bandwidth == pytest.approx(links * topology.chip.link_bandwidth)


def test_gpus_of_one_node_and_of_several():
    assert parse_topology("H100:16").local_devices == 8
    assert parse_topology("H100:8").link_bandwidth == 450e9 > parse_topology("H100:16").link_bandwidth


# Multiply-adds in a cycle: matrix units of a chip times 128 x 128 (cloud.google.com/tpu/docs/system-architecture-tpu-vm).
@pytest.mark.parametrize("name, units", [("v2", 2), ("v3", 4), ("v4", 8), ("v5e", 4), ("v5p", 8)])
def test_peak_is_clock_times_matrix_units(name, units):
    chip = CHIPS[name]
    assert chip.clock_hz * units * 128 * 128 * 2 == pytest.approx(chip.peak_flops, rel=0.01)
