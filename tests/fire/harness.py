"""Commands in processes of their own that are killed, and readers of what they leave that share no code with cbalign."""

import collections
import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
from orbax.checkpoint import v1 as ocp

ROOT = pathlib.Path(__file__).parents[2]
SCALE = int(wanted) if (wanted := os.environ.get("CBALIGN_FIRE", "")).isdigit() else 0
"""Number of kills of a training run; 0 (as with `full`, which is for the fuzz tests) for each test's own."""
SEED = int(os.environ.get("CBALIGN_FIRE_SEED", "0"))
"""Of the moments; another one gives other moments."""
_CLOCKS = ("time", "train/pairs_per_second")
_CONFIG = """
from tests.tiny import tiny_config

def get_config():
    return tiny_config(data__dir={dir!r}, data__rand_augment=False, data__second_view=False, train__steps=12,
                       train__log_steps=1, train__checkpoint_steps=3, train__eval_steps=4, train__keep=2,
                       model__dropout=0.1, eval__best_split="val")
"""


def write_config(folder: pathlib.Path, data: pathlib.Path) -> pathlib.Path:
    """Twelve steps, saved at 3, 6, 9, ..., evaluated (and saved) at 4, 8 and 12."""
    file = folder / "tiny.py"
    file.write_text(_CONFIG.format(dir=str(data)))
    return file


def start(*words) -> subprocess.Popen:
    """Starts `python -m cbalign WORDS`, its output in pipes."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "cbalign", *map(str, words)],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen, *, timeout: float = 600) -> tuple[int, str, str]:
    """(exit code, stdout, stderr); a process that hangs is killed, which fails the test."""
    try:
        out, error = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"hangs: {process.communicate()}") from None
    return process.returncode, out, error


@contextlib.contextmanager
def drained(process: subprocess.Popen):
    """Reads what a process prints while the block runs, lest its pipes fill; yields a function that returns the end."""
    kept = collections.deque(maxlen=1000)

    def read(pipe):
        kept.extend(pipe)

    threads = [threading.Thread(target=read, args=[pipe], daemon=True) for pipe in (process.stdout, process.stderr)]
    for thread in threads:
        thread.start()
    try:
        yield lambda: "".join(kept)
    except BaseException:
        process.kill()
        raise
    finally:
        process.wait()
        for thread in threads:
            thread.join()


def run(*words) -> str:
    """What a command that succeeds prints."""
    code, out, error = finish(start(*words))
    assert code == 0, error
    return out


def kill_at(seconds: float, *words, once=None) -> tuple[bool, str]:
    """Kills a command after so many seconds, counted from when once() holds: (whether it was at work, what it printed)."""
    process = start(*words)
    while once and process.poll() is None and not once():
        time.sleep(0.003)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    process.kill()
    code, out, error = finish(process)
    assert code in (0, -signal.SIGKILL), error
    return code != 0, out


def truth(holds, workdir: pathlib.Path) -> bool:
    """Whether something holds of a workdir that is being written or is not there yet."""
    try:
        return holds(workdir)
    except OSError:
        return False


def text(file: pathlib.Path) -> str:
    """What a file that may be missing holds."""
    return file.read_text() if file.exists() else ""


def moments(name: str, seconds: float):
    """Random moments in the duration of an uninterrupted command, without end."""
    generator = random.Random(f"{name} {SEED}")
    while True:
        yield generator.uniform(0, seconds)


def timed(function, *arguments):
    """(result, seconds)."""
    begun = time.monotonic()
    return function(*arguments), time.monotonic() - begun


def rows(workdir: pathlib.Path) -> list[dict]:
    """The lines of metrics.jsonl without the times, which no two runs share."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in _CLOCKS} for line in lines]


def complete_steps(workdir: pathlib.Path) -> list[int]:
    """Steps whose checkpoint lies under its final name."""
    folder = workdir / "checkpoints"
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.exists() else []


def checkpoint(workdir: pathlib.Path, step: int) -> list[np.ndarray]:
    """All arrays of a checkpoint, read by Orbax alone, without being told what it holds."""
    import jax

    return [np.asarray(leaf) for leaf in jax.tree.leaves(ocp.load(workdir / "checkpoints" / str(step)))]


def assert_whole(workdir: pathlib.Path) -> None:
    """Whatever a kill left can be read: JSON files as a whole, lines of metrics but for the last."""
    if not workdir.exists():
        return
    for file in workdir.glob("*.json"):
        json.loads(file.read_text())
    log = workdir / "metrics.jsonl"
    for line in log.read_text().split("\n")[:-1] if log.exists() else ():
        json.loads(line)
    for step in complete_steps(workdir):
        assert checkpoint(workdir, step)


def assert_same_run(workdir: pathlib.Path, whole: pathlib.Path) -> None:
    """A finished run equals the uninterrupted one: each line of its metrics, which is best, the last state's bits."""
    assert rows(workdir) == rows(whole)
    assert json.loads((workdir / "best.json").read_text()) == json.loads((whole / "best.json").read_text())
    assert json.loads((workdir / "run.json").read_text())["end"]["status"] == "finished"
    assert complete_steps(workdir)[-1] == complete_steps(whole)[-1]
    step = complete_steps(whole)[-1]
    for one, other in zip(checkpoint(workdir, step), checkpoint(whole, step), strict=True):
        np.testing.assert_array_equal(one, other)


def files(folder: pathlib.Path) -> dict[str, bytes]:
    """{relative path: content} of everything below a folder, hidden files too, but for locks."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def wait_for_row(process: subprocess.Popen, workdir: pathlib.Path, step: int) -> None:
    """Returns once metrics.jsonl has a line of the step."""
    log, deadline = workdir / "metrics.jsonl", time.monotonic() + 400
    while time.monotonic() < deadline and process.poll() is None:
        if log.exists() and f'{{"step": {step},' in log.read_text():
            return
        time.sleep(0.002)
    raise AssertionError(f"no step {step}: {finish(process)}")


def assert_one_line(code: int, error: str, *words: str) -> None:
    """A failure as a user should see it: an exit code, one line that holds the words, no stack trace."""
    lines = [line for line in error.splitlines() if line.strip()]
    assert code in (1, 2) and len(lines) == 1 and lines[0].startswith("cbalign: "), (code, error)
    assert all(word in lines[0] for word in words), error


@contextlib.contextmanager
def small_disk(folder: pathlib.Path, options: str):
    """A tmpfs mounted on a new folder; skips the test where mounting is not permitted."""
    import pytest

    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: pathlib.Path, *, leave: int) -> pathlib.Path:
    """Fills the disk of a folder with a file until so many bytes are left; removing it frees them."""
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        # The command that is to be starved may write at this very moment.
        for margin in range(0, 1 << 20, 1 << 14):
            space = os.statvfs(folder)
            try:
                os.posix_fallocate(file.fileno(), 0, max(space.f_bavail * space.f_frsize - leave - margin, 1))
                break
            except OSError:
                continue
    return ballast
