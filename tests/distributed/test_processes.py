"""Real processes on one host, over Gloo: the numbers of one, faults and how they end, and other numbers of devices after."""

import json
import os
import pathlib
import shutil
import signal
import socket
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
# Of so many steps that a fault after the first checkpoint leaves some to be done.
CONFIG = """
from tests.tiny import tiny_config

def get_config():
    return tiny_config(data__dir={dir!r}, train__steps=24, train__log_steps=1, train__checkpoint_steps=6,
                       itm__group_size=4, train__keep=2, eval__baselines=False)
"""
STEPS = 24


@pytest.fixture(scope="module")
def config_file(tmp_path_factory, tfds_dir):
    path = tmp_path_factory.mktemp("config") / "tiny.py"
    path.write_text(CONFIG.format(dir=str(tfds_dir)))
    return path


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(*command, processes=1, devices=1, limit=None):
    """Starts a command as so many processes of so many devices each; `limit` is of the size of a file, in KiB."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "CBALIGN_SILENCE_SECONDS": "8",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
    }
    port, started = free_port(), []
    for index in range(processes):
        flags = [f"--coordinator=127.0.0.1:{port}", f"--num-processes={processes}", f"--process-id={index}"]
        limited = ["bash", "-c", f'ulimit -f {limit}; exec "$@"', "bash"] if limit else []
        started.append(
            subprocess.Popen(
                [*limited, sys.executable, "-m", "cbalign", *map(str, command), *(flags if processes > 1 else [])],
                env=environment,
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return started


def finish(started, timeout=300):
    """[(code, output)] of all processes; none is left behind."""
    try:
        return [
            (process.returncode, output) for process in started for output in [process.communicate(timeout=timeout)[0]]
        ]
    finally:
        for process in started:
            process.kill()


def wait_for_step(started, workdir, step):
    file, deadline = workdir / "metrics.jsonl", time.time() + 300
    while time.time() < deadline and all(process.poll() is None for process in started):
        if file.exists() and len(file.read_text().splitlines()) >= step:
            return
        time.sleep(0.01)
    raise AssertionError(f"no step {step}: {finish(started)}")


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def losses(workdir):
    return {row["step"]: row["train/loss"] for row in rows(workdir) if "train/loss" in row}


def final_state(workdir):
    run = open_run(workdir)
    make, _, _ = state_factory(run.task, run.config, steps_per_epoch=1)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        assert checkpoints.latest_step() == STEPS
        return jax.tree.map(np.asarray, checkpoints.restore(jax.eval_shape(make)))


def assert_close(workdir, whole):
    """A run's losses and end are those of the run that nothing happened to, to rounding over the steps."""
    expected, found = losses(whole), losses(workdir)
    assert list(found) == list(expected) == list(range(1, STEPS + 1))
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=2e-4)
    one, other = final_state(workdir), final_state(whole)
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
        # Adam makes steps of the learning rate (1e-3) from gradients that are nothing but rounding, as those of the
        # keys' biases are; a tenth of one such step is allowed.
        assert np.abs(a - b).mean() <= 1e-4


@pytest.fixture(scope="module")
def whole(tmp_path_factory, config_file):
    """One process, one device, nothing happens to it."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    ((code, output),) = finish(start("train", f"--config={config_file}", f"--workdir={workdir}"))
    assert code == 0, output
    return workdir


def train(config_file, workdir):
    """A training that is not evaluated, which another test here is."""
    return "train", f"--config={config_file}", f"--workdir={workdir}", "--config.eval.splits=()"


@pytest.mark.slow
def test_a_notice_to_one_of_two_processes_saves_on_both_and_one_alone_goes_on(tmp_path, config_file, whole):
    workdir = tmp_path / "noticed"
    command = train(config_file, workdir)
    started = start(*command, processes=2)
    wait_for_step(started, workdir, 4)
    started[1].send_signal(signal.SIGTERM)
    ended = finish(started)
    assert [code for code, _ in ended] == [75, 75], ended
    assert "saved step" in ended[0][1] and "2 cpu device(s), 2 process(es)" in ended[0][1]
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        assert 4 <= checkpoints.latest_step() < STEPS
    ((code, output),) = finish(start(*command))
    assert code == 0 and "1 cpu device(s), 1 process(es)" in output, output
    assert_close(workdir, whole)


@pytest.mark.slow
def test_a_checkpoint_of_four_devices_goes_on_with_two(tmp_path, config_file, whole):
    workdir = tmp_path / "four"
    command = train(config_file, workdir)
    started = start(*command, devices=4)
    wait_for_step(started, workdir, 4)
    started[0].send_signal(signal.SIGTERM)
    ((code, output),) = finish(started)
    assert code == 75 and "4 cpu device(s), 1 process(es)" in output, output
    ((code, output),) = finish(start(*command, devices=2))
    assert code == 0 and "2 cpu device(s), 1 process(es)" in output and "own checkpoint" in output, output
    assert_close(workdir, whole)


@pytest.mark.slow
def test_a_killed_process_ends_the_other_which_names_it_and_two_of_two_go_on(tmp_path, config_file, whole):
    workdir = tmp_path / "killed"
    command = ("train", f"--config={config_file}", f"--workdir={workdir}")
    started = start(*command, processes=2)
    wait_for_step(started, workdir, 7)
    started[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    (code, output), (other, _) = finish(started, timeout=120)
    assert time.monotonic() - killed < 120
    assert code == 75 and other == -signal.SIGKILL, output
    assert "process 1 of 2 on" in output and "was killed" in output, output
    ended = finish(start(*command, processes=2, devices=2))
    assert [code for code, _ in ended] == [0, 0], ended
    assert_close(workdir, whole)
    # Written once, by process 0: a line a step, and one evaluation.
    assert sum("train/loss" not in row for row in rows(workdir)) == sum("train/loss" not in row for row in rows(whole))
    # Evaluated by both, the figures are those of one.
    found = []
    for processes in (1, 2):
        copy = tmp_path / f"copy{processes}"
        shutil.copytree(whole, copy)
        ended = finish(start("evaluate", f"--workdir={copy}", "--split=test", processes=processes))
        assert all(code == 0 for code, _ in ended), ended
        found.append(json.loads(next((copy / "metrics").glob("*_test.json")).read_text()))
    one, two = found
    assert one["contrastive"] == two["contrastive"] and one["itm"] == two["itm"]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("processes, lost, fault", [(2, 0, "SIGKILL"), (4, 3, "SIGSTOP")])
def test_after_a_lost_process_a_restart_resumes(tmp_path, config_file, whole, processes, lost, fault):
    workdir = tmp_path / "lost"
    command = ("train", f"--config={config_file}", f"--workdir={workdir}")
    started = start(*command, processes=processes)
    wait_for_step(started, workdir, 7)
    started[lost].send_signal(signal.Signals[fault])
    ended = finish([process for process in started if process is not started[lost]], timeout=120)
    started[lost].kill()
    finish(started)
    for code, output in ended:
        assert code == 75 and f"cbalign: process {lost} of {processes} " in output, output
    ended = finish(start(*command, processes=processes))
    assert all(code == 0 for code, _ in ended), ended
    assert_close(workdir, whole)


@pytest.mark.long
def test_a_save_that_does_not_fit_leaves_the_one_before(tmp_path, config_file, whole):
    workdir = tmp_path / "full"
    command = train(config_file, workdir)
    started = start(*command)
    wait_for_step(started, workdir, 4)
    started[0].send_signal(signal.SIGTERM)
    assert finish(started)[0][0] == 75
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        before = checkpoints.latest_step()
    # As on a full disk, a write fails in the middle of a file: a checkpoint has larger ones, the log has none.
    ((code, output),) = finish(start(*command, limit=150))
    assert code == 2, output
    (line,) = [line for line in output.splitlines() if line.startswith("cbalign: ")]
    assert "could not be saved" in line and f"{before} is complete" in line and "Traceback" not in output, output
    ((code, output),) = finish(start(*command))
    assert code == 0 and f"own checkpoint   step {before}" in output, output
    assert_close(workdir, whole)
