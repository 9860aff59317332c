"""Processes that are killed, that stand still and that lose their network: the others name them and end; a slow one ends nothing."""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.distributed.test_processes import finish, free_port

ROOT = pathlib.Path(__file__).parents[2]
SILENCE = 8
LIMIT = 120
"""Seconds within which all others end."""


def start(count, *, steps, host="127.0.0.1", spaces=(), silence=SILENCE):
    """So many processes of `at_work.py` that have met, each in a network namespace of its own if they are named."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "CBALIGN_SILENCE_SECONDS": str(silence),
    }
    address, started = f"{host}:{free_port()}", []
    for index in range(count):
        within = ["ip", "netns", "exec", spaces[index]] if spaces else []
        script = [sys.executable, ROOT / "tests/distributed/at_work.py", address, str(count), str(index), str(steps)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen([*within, *script], env=environment, cwd=ROOT, **pipes))
    for process in started:
        said = ""
        while "at work" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
    return started


def assert_named(process, lost, count, *, began):
    """A process ends in time, with the code for another start and one line that names the lost one."""
    output, _ = process.communicate(timeout=LIMIT)
    assert time.monotonic() - began < LIMIT
    named = [line for line in output.splitlines() if line.startswith(f"cbalign: process {lost} of {count} ")]
    named = [line for line in named if "Start the run again" in line]
    assert process.returncode == 75 and len(named) == 1, output


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["SIGKILL", "SIGSTOP"])
@pytest.mark.parametrize(
    "count, lost",
    [(2, 0), (2, 1), *(pytest.param(*each, marks=pytest.mark.long) for each in ((4, 0), (4, 2), (8, 0), (8, 5)))],
)
def test_the_others_name_the_lost_one(count, lost, fault):
    started = start(count, steps=100_000)
    began = time.monotonic()
    try:
        started[lost].send_signal(signal.Signals[fault])
        for process in started:
            if process is not started[lost]:
                assert_named(process, lost, count, began=began)
        if fault == "SIGSTOP":  # it wakes up alone
            started[lost].send_signal(signal.SIGCONT)
            output, _ = started[lost].communicate(timeout=LIMIT)
            assert started[lost].returncode == 75 and "Start the run again" in output, output
    finally:
        finish(started)


@pytest.mark.slow
@pytest.mark.long
def test_a_slow_one_ends_nothing():
    """It stands still for less than the time after which it counts as lost, again and again."""
    started = start(2, steps=100)
    for _ in range(4):
        started[1].send_signal(signal.SIGSTOP)
        time.sleep(SILENCE * 0.6)
        started[1].send_signal(signal.SIGCONT)
        time.sleep(0.1)
    for code, output in finish(started):
        assert code == 0 and "done" in output, output


@pytest.mark.slow
@pytest.mark.long
def test_all_that_stand_still_together_go_on():
    """As when a scheduler suspends a job: nobody was silent while the others were at work."""
    started = start(2, steps=100)
    for process in started:
        process.send_signal(signal.SIGSTOP)
    time.sleep(SILENCE * 2)
    for process in started:
        process.send_signal(signal.SIGCONT)
    for code, output in finish(started):
        assert code == 0 and "done" in output, output


@contextlib.contextmanager
def cable(host, other):
    """Two network namespaces and what connects them; yields their names and a function that turns it "down" or "up"."""
    spaces, ends = (f"cba{os.getpid()}", f"cbb{os.getpid()}"), (f"ca{os.getpid()}", f"cb{os.getpid()}")
    hosts = pathlib.Path("/etc/netns")

    def ip(*words):
        return subprocess.run(["ip", *words], capture_output=True, text=True, check=True)

    try:
        try:
            for space in spaces:
                ip("netns", "add", space)
                ip("-n", space, "link", "set", "lo", "up")
            ip("link", "add", ends[0], "netns", spaces[0], "type", "veth", "peer", "name", ends[1], "netns", spaces[1])
            for space, end, address in zip(spaces, ends, (host, other), strict=True):
                ip("-n", space, "addr", "add", f"{address}/24", "dev", end)
                ip("-n", space, "link", "set", end, "up")
                # Gloo listens at the address of the host's name; `ip netns exec` mounts these files over those in /etc.
                (hosts / space).mkdir(parents=True)
                (hosts / space / "hosts").write_text(f"{address} {socket.gethostname()}\n")
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no network namespaces can be made here: {error}")
        yield spaces, lambda state: ip("-n", spaces[1], "link", "set", ends[1], state)
    finally:
        for space in spaces:
            with contextlib.suppress(OSError):
                subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)
            shutil.rmtree(hosts / space, ignore_errors=True)


@pytest.mark.slow
def test_both_sides_of_a_cut_network_end():
    with cable("10.99.23.1", "10.99.23.2") as (spaces, turn):
        started = start(2, steps=100_000, host="10.99.23.1", spaces=spaces)
        turn("down")
        began = time.monotonic()
        try:
            assert_named(started[0], 1, 2, began=began)
            assert_named(started[1], 0, 2, began=began)
        finally:
            finish(started)


@pytest.mark.slow
@pytest.mark.long
def test_a_network_that_fails_for_ten_seconds_ends_nothing():
    with cable("10.99.24.1", "10.99.24.2") as (spaces, turn):
        started = start(2, steps=100, host="10.99.24.1", spaces=spaces, silence=60)
        turn("down")
        time.sleep(10)
        assert all(process.poll() is None for process in started)  # neither has ended, and neither can be done
        turn("up")
        for code, output in finish(started):
            assert code == 0 and "done" in output, output
