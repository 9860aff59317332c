"""Time and chip-hours by hand."""

import pytest

from cbalign.plan.ahead import Compiled
from cbalign.plan.chips import parse_topology
from cbalign.plan.cost import cost, training_steps
from tests.tiny import tiny_config


def compiled(flops):
    return Compiled(True, 1, 1, 1, flops, [], 0.0)


def test_a_v4_8_by_hand():
    # 4 chips of 275 TFLOP/s at 40 % are 440 TFLOP/s; 4 x 1.1e14 FLOPs a step are one second.
    config = tiny_config(train__batch_size=16, train__steps=7200, queue__size=64)
    found = cost(config, parse_topology("v4-8"), compiled(110 * 10**12), utilisation=0.4, pairs_per_epoch=1)
    assert found.step_seconds == pytest.approx(1.0) and found.pairs_per_second == pytest.approx(16)
    assert found.flops_per_pair == pytest.approx(440e12 / 16)
    assert found.chip_hours == pytest.approx(4 * 2) and found.days == pytest.approx(2 / 24)


def test_a_chip_of_two_devices_is_paid_once():
    # A v3-8 is 4 chips and 8 devices of 61.5 TFLOP/s.
    config = tiny_config(train__batch_size=16, train__steps=3600, queue__size=64)
    found = cost(config, parse_topology("v3-8"), compiled(615 * 10**11), utilisation=1.0, pairs_per_epoch=1)
    assert found.step_seconds == pytest.approx(1.0) and found.chip_hours == pytest.approx(4)


def test_epochs_drop_their_last_incomplete_batch():
    config = tiny_config(train__batch_size=16, train__steps=0, train__epochs=3, queue__size=64)
    assert training_steps(config, pairs_per_epoch=100) == 3 * 6
