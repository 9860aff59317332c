"""Progress bars of commands: on a terminal alone, never in a log."""

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def stage_bar(name: str, *, active: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """A bar that starts anew with each stage; yields the function progress(stage, done, total) that moves it."""
    from tqdm import tqdm

    with tqdm(unit="", leave=False, disable=not (active and sys.stderr.isatty())) as bar:

        def progress(stage: str, done: int, total: int) -> None:
            if bar.disable:
                return
            if bar.desc != f"{name} {stage}: ":
                bar.reset(total)
                bar.set_description(f"{name} {stage}")
            bar.update(done - bar.n)

        yield progress


@contextlib.contextmanager
def count_bar(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of one stage; yields the function progress(done, total) that moves it."""
    from tqdm import tqdm

    with tqdm(unit=unit, desc=what, leave=False, disable=not sys.stderr.isatty()) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress
