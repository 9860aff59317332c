"""The same global batch gives the same loss, gradients and queues on 1, 2, 4 and 8 devices, by pmap and by shard_map.

Dropout is on, and groups of negatives and distractors hold 8 of 16 rows: they lie within a device on one and two devices
and span two and four on four and eight.
"""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests.distributed.devices import main, one_device

ROOT = pathlib.Path(__file__).parents[2]


def run(tmp_path, devices, how="pmap", task="pretrain", overrides=()):
    out = tmp_path / f"{task}{how}{devices}.npz"
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "JAX_NUMPY_RANK_PROMOTION": "raise",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
    }
    subprocess.run(
        [sys.executable, str(ROOT / "tests/distributed/devices.py"), str(out), how, task, *overrides],
        env=environment,
        cwd=ROOT,
        check=True,
        timeout=600,
    )
    return dict(np.load(out))


def assert_equal_runs(one, other, devices):
    assert int(other["devices"]) == devices
    assert one.keys() == other.keys()
    moved = 0
    for name in one.keys() - {"devices"}:
        scale = max(1.0, float(np.max(np.abs(one[name]))))
        error = float(np.max(np.abs(one[name] - other[name]))) / scale
        assert error <= 1e-5, (name, error)
        moved += bool("gradient" in name and np.any(one[name]))
    assert moved > 50


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 8])
def test_same_numbers_on_any_number_of_devices(tmp_path, made_once, devices):
    assert_equal_runs(one_device(made_once), run(tmp_path, devices), devices)


@pytest.mark.slow
@pytest.mark.parametrize(
    "task",
    [
        "vqa",
        "snli_ve",
        *(pytest.param(task, marks=pytest.mark.long) for task in ("retrieval", "nlvr2_pretrain", "nlvr2")),
    ],
)
def test_the_same_for_every_task(tmp_path, made_once, task):
    assert_equal_runs(one_device(made_once, task), run(tmp_path, 4, task=task), 4)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["pretrain", "nlvr2_pretrain"])
def test_shard_map_does_what_pmap_does(tmp_path, made_once, task):
    assert_equal_runs(one_device(made_once, task), run(tmp_path, 4, "shard_map", task), 4)


@pytest.mark.slow
def test_features_mixed_of_codes(tmp_path, made_once):
    """The codes get gradients from every term, on each device; without mixing, all is different."""
    overrides = ("codebook.embed=True", "codebook.queue_rows=0")
    main(tmp_path / "one.npz", "pmap", "pretrain", *overrides)
    one = dict(np.load(tmp_path / "one.npz"))
    assert_equal_runs(one, run(tmp_path, 2, overrides=overrides), 2)
    assert abs(float(one["0/metric/ica"]) - float(one_device(made_once)["0/metric/ica"])) > 1e-3
