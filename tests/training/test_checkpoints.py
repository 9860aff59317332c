"""What Orbax prints beside the one line of ours."""

import asyncio
import errno
import gc
import logging
import os
import sys
import threading

from cbalign.training.checkpoints import quiet_orbax

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

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
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
