"""Progress of long work: a bar on a terminal, else a line now and then."""

import sys
import threading
import time

import tqdm

_SECONDS = 30.0


class Progress:
    """Counts what is done; may be told of it from several threads.

    Use it as a context: `with Progress("writing", total) as progress: ... progress.update()`.
    """

    def __init__(self, what: str, total: int, *, start: int = 0, unit: str = "record"):
        """Starts counting.

        Args:
          what: the work, as "writing".
          total: how many there are.
          start: how many were done before.
          unit: what is counted.
        """
        self._what, self._total, self._done, self._unit = what, total, start, unit
        self._lock = threading.Lock()
        self._told = time.monotonic()
        self._bar = tqdm.tqdm(
            desc=what, total=total, initial=start, unit=unit, leave=False, disable=not sys.stderr.isatty()
        )

    def update(self, count: int = 1) -> None:
        """Counts more as done."""
        with self._lock:
            self._done += count
            self._bar.update(count)
            if self._bar.disable and time.monotonic() - self._told > _SECONDS:
                self._told = time.monotonic()
                print(f"{self._what}: {self._done:,} of {self._total:,} {self._unit}s", file=sys.stderr, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error) -> None:
        self._bar.close()
