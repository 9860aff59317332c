"""Progress bars of commands, shown on a terminal only."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from cbalign.data.progress import Progress


@contextlib.contextmanager
def stage_bar(name: str, *, active: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for an operation of several stages; yields a function progress(stage, done, total) that moves it."""
    with contextlib.ExitStack() as stack:
        bars: dict[str, Progress] = {}

        def progress(stage: str, done: int, total: int) -> None:
            if not active:
                return
            if stage not in bars:
                stack.close()
                bars.clear()
                bars[stage] = stack.enter_context(Progress(f"{name} {stage}", total, unit="", lines=False))
            bars[stage].move_to(done, total)

        yield progress


@contextlib.contextmanager
def count_bar(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for an operation of one stage; yields a function progress(done, total) that moves it."""
    with Progress(what, unit=unit, lines=False) as progress:
        yield progress.move_to
