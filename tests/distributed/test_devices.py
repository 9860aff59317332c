"""The same global batch gives the same loss, gradients and queue on 1, 2, 4 and 8 devices, mapped either way."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]


def run(tmp_path, devices, how="pmap"):
    out = tmp_path / f"{how}{devices}.npz"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "JAX_NUMPY_RANK_PROMOTION": "raise",
                   "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"}
    subprocess.run([sys.executable, str(ROOT / "tests/training/devices.py"), str(out), how], env=environment, cwd=ROOT,
                   check=True, timeout=600)
    return dict(np.load(out))


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    return run(tmp_path_factory.mktemp("one"), 1)


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
@pytest.mark.parametrize("devices", [2, 4, 8])
def test_same_numbers_on_any_number_of_devices(tmp_path, one_device, devices):
    assert_equal_runs(one_device, run(tmp_path, devices), devices)


@pytest.mark.slow
def test_shard_map_does_what_pmap_does(tmp_path, one_device):
    assert_equal_runs(one_device, run(tmp_path, 2, "shard_map"), 2)
