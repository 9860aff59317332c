"""Time and chip-hours by hand, and the floors below which no estimate goes."""

import dataclasses

import pytest

from cbalign.plan.ahead import Compiled
from cbalign.plan.chips import parse_topology
from cbalign.plan.cost import cost, duration, training_steps
from tests.tiny import tiny_config

V4 = parse_topology("v4-8")


def compiled(flops, *, seconds=None, moved=0, **changes):
    """A program of so many FLOPs; with the compiler's estimate where `seconds` are given."""
    profile = {"seconds": seconds, "bytes": moved} if seconds is not None else None
    made = Compiled(True, 1, 0, 1, flops, 0, 0, [], 0.0, profile)
    return dataclasses.replace(made, **changes)


def test_the_compilers_estimate_is_the_time():
    time = duration(compiled(275 * 10**11, seconds=0.695, moved=442 * 10**9), V4)
    assert time.seconds == 0.695 and time.basis == "the compiler's estimate"
    # 27.5 TFLOP at 275 TFLOP/s; 442 GB at 1,228 GB/s.
    assert time.matmul_floor == pytest.approx(0.1) and time.memory_floor == pytest.approx(0.36, abs=1e-3)
    assert time.share_of_peak == pytest.approx(0.1 / 0.695)


def test_an_assumption_takes_its_place_but_not_below_the_floors():
    program = compiled(275 * 10**11, seconds=0.695, moved=442 * 10**9)
    slow = duration(program, V4, utilisation=0.1)
    assert slow.seconds == pytest.approx(1.0) and slow.basis == "assumed 10% of the peak"
    fast = duration(program, V4, utilisation=0.4)  # 250 ms: less than the bytes take
    assert fast.seconds == pytest.approx(0.36, abs=1e-3) and fast.basis == "bytes at the memory's bandwidth"


def test_without_a_compiler_the_products_at_an_assumed_share():
    h100 = parse_topology("H100:8")
    time = duration(compiled(989 * 10**9), h100)
    assert time.seconds == pytest.approx(1e-3 / 0.4) and time.basis == "assumed 40% of the peak"
    # State and what linear layers read and write, at 3.35 TB/s: 10 ms.
    heavy = duration(compiled(989 * 10**9, dense_bytes=30 * 10**9, argument_bytes=35 * 10**8), h100)
    assert heavy.seconds == pytest.approx(0.01) and heavy.basis == "bytes at the memory's bandwidth"


@pytest.mark.parametrize("name, peak", [("v4-8", 275e12 / 6), ("H100:1", 67e12), ("A100:1", 19.5e12)])
def test_float32_products_have_a_peak_of_their_own(name, peak):
    time = duration(compiled(2 * 10**12, float32_flops=10**12), parse_topology(name))
    whole = parse_topology(name).peak_flops
    assert time.matmul_floor == pytest.approx(1e12 / peak + 1e12 / whole)


def test_a_v4_8_by_hand():
    # 4 chips of 275 TFLOP/s at 40 % are 440 TFLOP/s; 4 x 1.1e14 FLOPs a step are one second.
    config = tiny_config(train__batch_size=16, train__steps=7200, queue__size=64)
    program = compiled(110 * 10**12)
    found = cost(config, V4, program, duration(program, V4), pairs_per_epoch=1)
    assert found.step_seconds == pytest.approx(1.0) and found.pairs_per_second == pytest.approx(16)
    assert found.flops_per_pair == pytest.approx(440e12 / 16)
    assert found.chip_hours == pytest.approx(4 * 2) and found.days == pytest.approx(2 / 24)


def test_a_chip_of_two_devices_is_paid_once():
    # A v3-8 is 4 chips and 8 devices of 61.5 TFLOP/s.
    config, v3 = tiny_config(train__batch_size=16, train__steps=3600, queue__size=64), parse_topology("v3-8")
    program = compiled(615 * 10**11)
    found = cost(config, v3, program, duration(program, v3, utilisation=1.0), pairs_per_epoch=1)
    assert found.step_seconds == pytest.approx(1.0) and found.chip_hours == pytest.approx(4)


def test_epochs_drop_their_last_incomplete_batch():
    config = tiny_config(train__batch_size=16, train__steps=0, train__epochs=3, queue__size=64)
    assert training_steps(config, pairs_per_epoch=100) == 3 * 6
