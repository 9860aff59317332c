"""A run that was killed, or told to stop, ends with the very numbers of one that was not."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from cbalign.runs.train import state_factory
from cbalign.runs.workdir import open_run
from cbalign.training.checkpoints import Checkpoints

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = """
from tests.tiny import tiny_config

def get_config():
    return tiny_config(data__dir={dir!r}, train__steps=18, train__log_steps=1, train__checkpoint_steps=3,
                       train__keep=2, model__dropout=0.1, eval__splits=())
"""


@pytest.fixture(scope="module")
def config_file(tmp_path_factory, tfds_dir):
    path = tmp_path_factory.mktemp("config") / "tiny.py"
    path.write_text(CONFIG.format(dir=str(tfds_dir)))
    return path


def start(config_file, workdir):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "cbalign", "train", f"--config={config_file}", f"--workdir={workdir}"]
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process):
    output, _ = process.communicate(timeout=600)
    return process.returncode, output


def wait_for_step(process, workdir, step):
    """Returns once the log of metrics has come to `step`."""
    file = workdir / "metrics.jsonl"
    deadline = time.time() + 300
    while time.time() < deadline and process.poll() is None:
        if file.exists() and len(file.read_text().splitlines()) >= step:
            return
        time.sleep(0.005)
    raise AssertionError(f"no step {step}: {finish(process)}")


def final_state(workdir):
    run = open_run(workdir)
    make, _, _ = state_factory(run.task, run.config, steps_per_epoch=1)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        assert checkpoints.latest_step() == run.config.train.steps
        return jax.tree.map(np.asarray, checkpoints.restore(jax.eval_shape(make)))


def losses(workdir):
    return {
        row["step"]: row["train/loss"] for row in map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    }


def assert_identical(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, config_file):
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    code, output = finish(start(config_file, workdir))
    assert code == 0, output
    return final_state(workdir), losses(workdir)


@pytest.mark.long
def test_kill_9_at_any_moment_leaves_the_numbers_as_they_are(tmp_path, config_file, uninterrupted):
    workdir = tmp_path / "killed"
    # Steps 3, 6, ... are being saved while the next ones run, so kills right after them fall into a save.
    for step in (4, 10):
        process = start(config_file, workdir)
        wait_for_step(process, workdir, step)
        process.send_signal(signal.SIGKILL)
        assert finish(process)[0] == -signal.SIGKILL
    code, output = finish(start(config_file, workdir))
    assert code == 0 and "own checkpoint   step" in output and "<- taken" in output, output
    state, by_step = uninterrupted
    assert_identical(final_state(workdir), state)
    assert losses(workdir) == by_step


@pytest.mark.slow
def test_sigterm_saves_first(tmp_path, config_file, uninterrupted):
    workdir = tmp_path / "stopped"
    process = start(config_file, workdir)
    wait_for_step(process, workdir, 5)
    process.send_signal(signal.SIGTERM)
    code, output = finish(process)
    assert code == 75 and "saved step" in output, output
    stopped_at = int(output.split("saved step ")[1].split(";")[0])
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        assert checkpoints.latest_step() == stopped_at < 18
    code, output = finish(start(config_file, workdir))
    assert code == 0 and f"own checkpoint   step {stopped_at}" in output, output
    assert_identical(final_state(workdir), uninterrupted[0])
    # Started once more, there is nothing left to do.
    code, output = finish(start(config_file, workdir))
    assert code == 0 and "all 18 steps are done" in output, output
