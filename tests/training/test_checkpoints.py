"""Which checkpoints stay, what Orbax prints beside the one line of ours, and what it keeps open."""

import asyncio
import dataclasses
import errno
import gc
import logging
import os
import pathlib
import sys
import threading

import jax.numpy as jnp
import pytest

from cbalign.errors import UserError
from cbalign.training import checkpoints
from cbalign.training.checkpoints import Checkpoints, quiet_orbax

FULL = (OSError, errno.ENOSPC, os.strerror(errno.ENOSPC))


def raiser(error, file):
    """A function of a file of that name that raises an error."""
    kind, *arguments = error
    scope = {"kind": kind, "arguments": arguments}
    exec(compile("def function():\n    raise kind(*arguments)", file, "exec"), scope)
    return scope["function"]


def in_a_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def in_a_lost_task(function):
    async def task():
        function()

    async def main():
        asyncio.get_running_loop().create_task(task())
        await asyncio.sleep(0)

    # In a thread of its own: this one may have a loop.
    in_a_thread(lambda: asyncio.run(main()))
    gc.collect()


def test_only_disk_errors_of_orbax_are_silenced(capsys, monkeypatch):
    # As outside pytest, which takes what threads raise for itself.
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    handler = logging.StreamHandler(sys.stderr)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    orbax, other = "/packages/orbax/checkpoint/save.py", "/packages/other/save.py"
    for use in (in_a_thread, in_a_lost_task):
        with quiet_orbax():
            use(raiser(FULL, orbax))
            assert capsys.readouterr().err == ""
            use(raiser(FULL, other))
            assert "No space left on device" in capsys.readouterr().err
            use(raiser((ValueError, "a bug"), orbax))
            assert "a bug" in capsys.readouterr().err
        use(raiser(FULL, orbax))
        assert "No space left on device" in capsys.readouterr().err


def test_its_warnings_but_two_are_shown(capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(sys.stderr)])
    logger = logging.getLogger("absl")
    monkeypatch.setattr(logger, "handlers", [])
    with quiet_orbax():
        logger.warning("Waiting for previous save to complete took %f seconds.", 3.0)
        logger.error("failed", exc_info=OSError("full"))
        logger.info("saving")
        logger.warning("the checkpoint has another shape")
    assert capsys.readouterr().err == "the checkpoint has another shape\n"


def test_a_run_that_the_disk_ends_stays_quiet(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(sys.stderr)])
    logger = logging.getLogger("absl")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(checkpoints, "_KEPT", [])
    kind, *arguments = FULL
    with pytest.raises(OSError, match="No space"), Checkpoints(tmp_path / "checkpoints"):
        raise kind(*arguments)
    gc.collect()
    logger.error("of a thread that comes late", exc_info=OSError("full"))
    assert capsys.readouterr().err == ""
    for stack in checkpoints._KEPT:
        stack.close()
    logger.error("of another library", exc_info=OSError("full"))
    assert "of another library" in capsys.readouterr().err


@dataclasses.dataclass
class State:
    params: dict


@pytest.mark.skipif(not pathlib.Path("/proc/self/fd").exists(), reason="open files are counted in /proc")
def test_saves_keep_neither_files_nor_threads(tmp_path):
    def held():
        return len(os.listdir("/proc/self/fd")), sum("run_loop" in thread.name for thread in threading.enumerate())

    with Checkpoints(tmp_path / "checkpoints") as opened:
        for step in range(1, 7):
            opened.save(step, State({"a": jnp.ones(3)}))
            opened.wait()
            if step == 2:
                before = held()
        assert held() == before


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def save(opened, step, metric=None):
    opened.save(step, State({"a": jnp.full(3, step)}))
    opened.record_evaluation(step, metric)
    opened.wait()


def test_the_newest_and_the_best_stay(tmp_path):
    folder = tmp_path / "checkpoints"
    left = []
    with Checkpoints(folder, keep=2) as opened:
        for step, metric in enumerate([5.0, 7.0, 6.0, None, 8.0, 1.0, 1.0], start=1):
            save(opened, step, metric)
            left.append(names(folder))
            assert (opened.latest_step(), opened.best_step()) == (step, 1 if step == 1 else 2 if step < 5 else 5)
    assert left == [["1"], ["1", "2"], ["2", "3"], ["2", "3", "4"], ["4", "5"], ["5", "6"], ["5", "6", "7"]]
    with Checkpoints(folder, keep=1) as opened:
        assert names(folder) == ["5", "6", "7"] and opened.best_step() == 5


def test_a_kill_while_one_is_removed_leaves_no_half_of_it(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints"

    def killed(path, **_):
        next(file for file in path.glob("*") if file.is_file()).unlink()
        raise KeyboardInterrupt

    with Checkpoints(folder, keep=1) as opened:
        save(opened, 1)
        monkeypatch.setattr(type(opened.directory), "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            save(opened, 2)
    assert [name for name in names(folder) if name.isdigit()] == ["2"] and len(names(folder)) == 2
    monkeypatch.undo()
    with Checkpoints(folder) as opened:
        save(opened, 3)
    assert names(folder) == ["3"]


@pytest.fixture
def folder(tmp_path):
    """Holds one checkpoint, of step 1."""
    with Checkpoints(tmp_path / "checkpoints") as opened:
        save(opened, 1)
    return tmp_path / "checkpoints"


def test_a_reader_leaves_a_save_in_progress_alone(folder):
    begun = folder / "2.orbax-checkpoint-tmp-17"
    begun.mkdir()
    with Checkpoints(folder, read_only=True) as opened:
        assert opened.restore_fields({"params": {"a": jnp.zeros(3)}})["params"]["a"].tolist() == [1, 1, 1]
    assert begun.exists()
    with Checkpoints(folder) as opened:
        save(opened, 2)
    assert names(folder) == ["2"]


def test_a_checkpoint_that_vanishes_while_it_is_read_is_not_called_damaged(folder, tmp_path):
    with Checkpoints(folder, read_only=True) as opened:
        (folder / "1").rename(tmp_path / "gone")
        with pytest.raises(UserError, match="was removed while it was read"):
            opened.restore_fields({"params": {"a": jnp.zeros(3)}})
