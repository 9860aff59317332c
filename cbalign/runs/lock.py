"""One training at a time in a workdir."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import filelock
import jax
from etils import epath

from cbalign.errors import UserError
from cbalign.runs import provenance
from cbalign.runs.workdir import CHECKPOINTS, CONFIG
from cbalign.training.checkpoints import BEST
from cbalign.training.run_log import LOSSES

LOCK = ".train.lock"


@contextlib.contextmanager
def held(workdir: epath.Path) -> Iterator[None]:
    """Keeps a workdir for one training at a time; a killed one leaves it free. A bucket knows no locks.

    Raises:
      UserError: another process trains in it.
    """
    if jax.process_index() or "://" in os.fspath(workdir):
        yield
        return
    lock = filelock.FileLock(workdir / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(f"another process is training in {workdir}; wait for it, or name a new --workdir") from None
    except NotImplementedError:
        print(f"note: {workdir} is on a file system without locks; train in it once at a time", flush=True)
    try:
        yield
    except BaseException:
        if lock.is_locked and not (workdir / LOCK).exists():
            _discard_late_writes(workdir)
        raise
    finally:
        lock.release()


def _discard_late_writes(workdir: epath.Path) -> None:
    """Removes what a run wrote into its folder after that had been removed: a save in progress makes it anew."""
    if workdir.exists() and not (workdir / CONFIG).exists():
        (workdir / CHECKPOINTS).rmtree(missing_ok=True)
        for name in (BEST, LOSSES, provenance.FILE):
            (workdir / name).unlink(missing_ok=True)
        if not any(workdir.iterdir()):  # else somebody put other things there
            workdir.rmdir()
