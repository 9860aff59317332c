"""Steps by the ten thousand, of the smallest model there is: memory, time, files, threads and logs do not grow with them."""

import os
import pathlib
import time

import numpy as np
import pytest

from tests.fire import harness

pytestmark = pytest.mark.skipif(not pathlib.Path("/proc/self/statm").exists(), reason="a process is read from /proc")

SECONDS = float(os.environ.get("CBALIGN_FIRE_SECONDS", "inf"))
"""After which the long test stops its run and judges what was seen until then."""
_CONFIG = """
from tests.tiny import tiny_config

def get_config():
    return tiny_config(data__dir={dir!r}, data__rand_augment=False, data__second_view=False, data__image_size=16,
                       model__image_width=8, model__image_heads=1, model__text_width=8, model__text_heads=1,
                       model__embed_dim=8, queue__size=4, codebook__num_codes=4, codebook__iterations=1,
                       itm__group_size=2, train__batch_size=2, train__steps={steps}, train__log_steps={log},
                       train__checkpoint_steps={save}, train__keep=2, eval__splits=())
"""
# What a run writes a line or an event to, or a part of for each epoch.
_LOGS = ("train.log", "metrics.jsonl", "losses.json", "tensorboard")


def size(workdir, names):
    """Bytes in files, and in those of folders."""
    paths = (path for name in names for path in [workdir / name, *(workdir / name).rglob("*")])
    return sum(path.stat().st_size for path in paths if path.is_file())


def sample(process, workdir):
    """{name: value} of a process at work, as the kernel counts it."""
    proc = pathlib.Path(f"/proc/{process.pid}")
    fields = (proc / "stat").read_text().rpartition(")")[2].split()
    return {
        "time": time.monotonic(),
        "cpu_seconds": (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
        "threads": int(fields[17]),
        "memory": int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
        "open_files": len(list((proc / "fd").iterdir())),
        "log_bytes": size(workdir, _LOGS),
    }


def watch(process, workdir, every, seconds):
    """{step: what `sample` finds}, about every so many steps, until the process ends or so many seconds have passed."""
    found, due, deadline = {}, every, time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        step = last_step(workdir / "metrics.jsonl")
        if step >= due:
            try:
                found[step] = sample(process, workdir)
            except OSError:  # the process has ended
                break
            due = step + every
        time.sleep(0.2)
    return found


def last_step(log):
    """The step of the last whole line of metrics.jsonl; 0 where there is none."""
    if not log.exists():
        return 0
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 8192))
        lines = file.read().split(b"\n")[:-1]
    return int(lines[-1].split(b",", 1)[0].removeprefix(b'{"step": ')) if lines[-1:] else 0


def burn(folder, data, steps, samples, seconds=float("inf")):
    """Trains so many steps, or so many seconds; returns the samples as columns."""
    config = folder / "small.py"
    config.write_text(_CONFIG.format(dir=str(data), steps=steps, log=steps // samples, save=steps // 10))
    process = harness.start("train", f"--config={config}", f"--workdir={folder / 'run'}")
    with harness.drained(process) as output:
        found = watch(process, folder / "run", steps // samples, seconds)
        process.terminate()
    finished = last_step(folder / "run" / "metrics.jsonl") == steps
    assert process.returncode == (0 if finished else 75), output()[-3000:]
    columns = {name: np.array([row[name] for row in found.values()], np.float64) for name in next(iter(found.values()))}
    return {"step": np.array(list(found), np.float64), **columns}


def report(columns):
    """The samples, ten of them, as lines."""
    rows = np.unique(np.linspace(0, len(columns["step"]) - 1, 10).astype(int))
    return "\n".join("  ".join(f"{name} {columns[name][row]:,.0f}" for name in columns) for row in rows)


def judge(columns):
    """Asserts that what may not grow is as in the second tenth of the run, or less, and that logs grow with the steps."""
    count = len(columns["step"])
    early, late = slice(count // 10, max(count // 5, count // 10 + 3)), slice(-max(count // 10, 3), None)

    def grown(name):
        return np.median(columns[name][late]) - np.median(columns[name][early])

    def rate(name, part):
        return np.median(np.diff(columns[name])[part] / np.diff(columns["step"])[part])

    assert grown("memory") < 32 << 20, report(columns)
    # A save in progress has two threads and three files; if each save left them, there would be many more.
    assert grown("threads") <= 4 and grown("open_files") <= 4, report(columns)
    # By the processor's clock: other programs may take their share of it.
    assert rate("cpu_seconds", late) < 1.25 * rate("cpu_seconds", early), report(columns)
    assert rate("log_bytes", late) < 1.25 * rate("log_bytes", early), report(columns)


@pytest.mark.slow
def test_some_thousand_steps(tmp_path, tfds_dir):
    judge(burn(tmp_path, tfds_dir, 4_000, samples=20))


@pytest.mark.long
def test_two_hundred_thousand_steps(tmp_path, tfds_dir):
    columns = burn(tmp_path, tfds_dir, 200_000, samples=200, seconds=SECONDS)
    print(report(columns))
    judge(columns)
