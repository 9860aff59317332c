"""Progress of long operations: a bar on a terminal, else a line of text from time to time."""

from __future__ import annotations

import sys
import threading
import time

import tqdm

_SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Counts finished items; safe to update from several threads.

    Use it as a context: `with Progress("writing", total) as progress: ... progress.update()`.
    """

    def __init__(
        self, what: str, total: int | None = None, *, start: int = 0, unit: str = "record", lines: bool = True
    ):
        """Starts counting.

        Args:
          what: the operation, such as "writing".
          total: number of items; None where it becomes known with the first `move_to`.
          start: items finished earlier.
          unit: what is counted, in the singular.
          lines: whether to print lines where there is no terminal.
        """
        self._lock, self._lines, self._printed = threading.Lock(), lines, time.monotonic()
        self._bar = tqdm.tqdm(
            desc=what, total=total, initial=start, unit=unit, leave=False, disable=not sys.stderr.isatty()
        )
        self._what, self._unit, self._done, self._total = what, unit, start, total

    def update(self, count: int = 1) -> None:
        """Counts further items as finished."""
        with self._lock:
            self._advance(count)

    def move_to(self, done: int, total: int) -> None:
        """Sets the number of finished items and the total."""
        with self._lock:
            self._total = self._bar.total = total
            self._advance(done - self._done)

    def _advance(self, count: int) -> None:
        self._done += count
        self._bar.update(count)
        due = self._lines and self._bar.disable and time.monotonic() - self._printed > _SECONDS_BETWEEN_LINES
        if due:
            self._printed = time.monotonic()
            total = "" if self._total is None else f" of {self._total:,}"
            print(f"{self._what}: {self._done:,}{total} {self._unit}s", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Removes the bar."""
        self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error) -> None:
        self.close()
