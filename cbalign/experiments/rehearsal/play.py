"""Runs the suite of a rehearsal in processes of its own, two of which it ends on the way, and shows the progress."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TextIO

from cbalign.errors import UserError
from cbalign.experiments.engine import Job, command, outstanding, typed

LOG = "suite.log"
TRY_AGAIN = 75  # the exit code of `cbalign train` after SIGTERM
_STEP = re.compile(r"step (\d+)/(\d+)  ")


@dataclasses.dataclass(frozen=True)
class Interruption:
    """How a training is ended before its time.

    Attributes:
      signal: that its process gets.
      training: the how-manieth training of the suite gets it, from 0.
      step: once it has logged that step; 0: the last one, which is logged before it is saved and evaluated.
      code: with which the process must end.
    """

    signal: signal.Signals
    training: int
    step: int
    code: int

    @property
    def place(self) -> str:
        """The step in words."""
        return f"step {self.step}" if self.step else "the last step"


INTERRUPTIONS = (
    Interruption(signal.SIGTERM, training=0, step=3, code=TRY_AGAIN),
    Interruption(signal.SIGKILL, training=1, step=0, code=-signal.SIGKILL),
)


def play(job: Job, folder: pathlib.Path, arguments: list[str], *, say: Callable[[str], None] = print) -> None:
    """Runs a suite until nothing is missing.

    Args:
      job: the rehearsal's.
      folder: of the rehearsal, with `tfds/`; gets `suite.log`, what all commands printed.
      arguments: of `cbalign` that run the suite.
      say: called with a line for the user.

    Raises:
      UserError: a command failed, or a process did not end as it must.
    """
    progress = _Progress(job, say)
    trainings = [step.trial.workdir(job.runs) for step in outstanding(job) if step.kind == "train"]
    waiting = [x for x in INTERRUPTIONS if x.training < len(trainings)]
    say(f"{len(job.suite.select(job.only))} rows, {progress.left} commands; their output: {folder / LOG}")
    with (folder / LOG).open("a", encoding="utf-8") as log:
        for interruption in [*waiting, None]:
            if interruption is None:
                _check_code(_process(arguments, folder, log, progress), 0, "the suite", folder)
                continue
            workdir, name = trainings[interruption.training], interruption.signal.name
            code = _process(arguments, folder, log, progress, interruption, str(workdir))
            progress.end()
            _check_code(code, interruption.code, f"{name} in {workdir}", folder)
            say(f"{name} at {interruption.place} of {workdir.name}; starting again")
    say(progress.summary())


def _check_code(code: int, wanted: int, what: str, folder: pathlib.Path) -> None:
    if code != wanted:
        last = (folder / LOG).read_text(encoding="utf-8").splitlines()[-1:]
        raise UserError(
            f"rehearsal failed: {what} ended with code {code}, not {wanted}; see the end of {folder / LOG} "
            f"({' '.join(last)[:200]})"
        )


def _process(
    arguments: list[str],
    folder: pathlib.Path,
    log: TextIO,
    progress: _Progress,
    interruption: Interruption | None = None,
    workdir: str = "",
) -> int:
    """One process of the suite; returns its exit code."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TFDS_DATA_DIR": str(folder / "tfds")}
    # What one command compiled, the others find: of the rehearsal's minutes most would be spent on compilation.
    environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "compiled"))
    environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    process = subprocess.Popen(
        [sys.executable, "-m", "cbalign", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            log.write(line)
            log.flush()
            progress.line(line.rstrip("\n"))
            done = _STEP.match(line) if interruption and progress.workdir == workdir else None
            if interruption and done and int(done[1]) >= (interruption.step or int(done[2])):
                process.send_signal(interruption.signal)
                interruption = None
        code = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    if interruption and not code:
        raise UserError(f"rehearsal failed: nothing could be interrupted, {workdir} never logged {interruption.place}")
    return code


class _Progress:
    """Names each command with its row and the seconds it took."""

    def __init__(self, job: Job, say: Callable[[str], None]):
        self.say, self.workdir, self._running, self._since = say, "", "", 0.0
        rows = [row.name for row in job.suite.select(job.only)]
        steps = outstanding(job)
        self.left = len(steps)
        self._rows = {typed(command(job, step)): step.trial.row.name for step in steps}
        self._place = {name: f"row {i} of {len(rows)}, {name}" for i, name in enumerate(rows, 1)}
        self._begun, self._seconds = time.monotonic(), collections.defaultdict(float)

    def line(self, text: str) -> None:
        """Takes a line of the suite's output; one that is a command begins it."""
        if text not in self._rows:
            return
        self.end()
        self._running, self._since = text, time.monotonic()
        self.workdir = next(word.partition("=")[2] for word in shlex.split(text) if word.startswith("--workdir="))

    def end(self) -> None:
        """The running command has come to its end, good or bad."""
        if self._running:
            seconds = time.monotonic() - self._since
            kind = shlex.split(self._running)[1]
            self.say(f"{self._place[self._rows[self._running]]}: {kind}, {seconds:.0f} s")
            self._seconds[kind] += seconds
        self._running = ""

    def summary(self) -> str:
        """Where the time went, in a line."""
        self.end()
        total = time.monotonic() - self._begun
        parts = [f"{kind} {seconds:.0f} s" for kind, seconds in self._seconds.items()]
        return f"{self.left} commands in {total:.0f} s: " + ", ".join(parts)
