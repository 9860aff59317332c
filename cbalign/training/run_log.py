"""What a run writes while it trains: log, metrics as JSON lines, epoch means, TensorBoard events, a progress bar."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import sys
import time
from collections.abc import Mapping

from etils import epath
from tensorboardX import record_writer
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyrefly: ignore
from tensorboardX.summary import scalar
from tqdm import tqdm

from cbalign.errors import UserError
from cbalign.storage import append_text, parse_json, write_atomically, write_json
from cbalign.training.epoch_means import EpochMeans

LOSSES = "losses.json"
_BUCKET = "gs"
_FLUSH_SECONDS = 120


class RunLog:
    """Writes `train.log`, `metrics.jsonl`, `losses.json` and TensorBoard events into a workdir, and shows progress.

    Only the process with `active` writes; on all others the methods do nothing.
    """

    def __init__(
        self, workdir: os.PathLike | str, *, start_step: int, steps: int, steps_per_epoch: int, active: bool = True
    ):
        """Opens the files and discards the lines of `metrics.jsonl` after start_step, which a killed run left.

        Args:
          workdir: folder of the run, local or in a bucket.
          start_step: finished steps.
          steps: total number of training steps.
          steps_per_epoch: steps in one pass over the training data.
          active: whether this process writes.
        """
        self.active = active
        if not active:
            return
        self.workdir = epath.Path(workdir)
        self.metrics_file = self.workdir / "metrics.jsonl"
        self.epochs = EpochMeans(steps_per_epoch, self._drop_lines_after(start_step))
        self.events = _Events(self.workdir / "tensorboard", start_step)
        self.logger = _logger(self.workdir / "train.log")
        self.bar = tqdm(
            total=steps,
            initial=start_step,
            unit="step",
            desc="train",
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )

    def _drop_lines_after(self, step: int) -> list[str]:
        """Rewrites `metrics.jsonl` without the lines after a step and returns the remaining lines."""
        if not self.metrics_file.exists():
            return []
        kept = []
        for line in self.metrics_file.read_text().splitlines():
            try:
                if parse_json(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError, TypeError):
                continue  # a line truncated by a kill
        write_atomically(self.metrics_file, "".join(kept))
        return kept

    def log(self, message: str) -> None:
        """Writes a message to the log and to the screen."""
        if not self.active:
            return
        self.logger.info(message)
        if not self.bar.disable:
            self.bar.write(message)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes metrics as one JSON line {"step", "time", **metrics} and as TensorBoard scalars."""
        if not self.active:
            return
        line = json.dumps({"step": step, "time": round(time.time(), 3), **_finite(metrics)})
        append_text(self.metrics_file, line + "\n")
        self.events.add(step, {name: value for name, value in metrics.items() if math.isfinite(value)})

    def write_training(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes means over the steps since the previous such line as "train/NAME", and updates `losses.json`."""
        if not self.active:
            return
        metrics = {f"train/{name}": value for name, value in metrics.items()}
        self.write(step, metrics)
        self.epochs.add(step, metrics)
        # Writing it would make a folder anew that was removed meanwhile, and the run would go on there.
        if not self.workdir.exists():
            raise UserError(f"{self.workdir} was removed while the run was training; start again")
        write_json(self.workdir / LOSSES, self.epochs.as_dict())

    def advance(self, step: int, loss: float | None = None) -> None:
        """Moves the progress bar to a step and shows the loss beside it, if given."""
        if self.active:
            self.bar.update(step - self.bar.n)
            if loss is not None:
                self.bar.set_postfix(loss=f"{loss:.3f}", refresh=False)

    def close(self) -> None:
        """Closes the progress bar and flushes the TensorBoard events."""
        if self.active:
            self.bar.close()
            self.events.close()


def _finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """The metrics with None for NaN and infinities, which JSON cannot represent."""
    return {name: (value if math.isfinite(value) else None) for name, value in metrics.items()}


class _LogFile(logging.Handler):
    """Appends each record to a file, local or in a bucket."""

    def __init__(self, path: epath.Path):
        super().__init__()
        self.path = path

    def emit(self, record):
        append_text(self.path, self.format(record) + "\n")


def _logger(path: epath.Path) -> logging.Logger:
    """A logger that writes to a file, and to the screen unless a progress bar is shown there."""
    logger = logging.getLogger(f"cbalign.train.{path}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers.clear()
    to_file = _LogFile(path)
    to_file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger.addHandler(to_file)
    if not sys.stderr.isatty():
        to_screen = logging.StreamHandler(sys.stdout)
        to_screen.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(to_screen)
    return logger


class _BucketEvents:
    """An events file in a bucket, rewritten at every flush: objects in a bucket cannot be appended to."""

    def __init__(self, path: str):
        self.path, self.content = epath.Path(path), io.BytesIO()

    def write(self, data: bytes) -> None:
        """Adds data to the file's content."""
        self.content.write(data)

    def flush(self) -> None:
        """Writes the whole content to the bucket."""
        self.path.write_bytes(self.content.getvalue())

    def close(self) -> None:
        """Writes the content a last time."""
        self.flush()


class _BucketEventsFactory:
    """The factory of `_BucketEvents`, as tensorboardX expects it."""

    def open(self, path: str) -> _BucketEvents:
        """Creates an events file."""
        return _BucketEvents(path)

    def directory_check(self, path: str) -> None:
        """Creates the folder of the events files."""
        epath.Path(path).mkdir(parents=True, exist_ok=True)


class _Events:
    """TensorBoard's events of a run, written by the thread that trains; TensorBoard hides what came after start_step.

    `SummaryWriter` has a thread and a queue: on a full disk the thread dies, and the full queue then blocks training.
    """

    def __init__(self, folder: epath.Path, start_step: int):
        if str(folder).startswith(f"{_BUCKET}://"):
            # tensorboardX's own writer for gs:// needs Google's client library; this one goes through epath.
            record_writer.register_writer_factory(_BUCKET, _BucketEventsFactory())
        folder.mkdir(parents=True, exist_ok=True)
        self._writer: EventsWriter | None = EventsWriter(f"{folder}/events", filename_suffix=f".{start_step}")
        self._flushed = time.monotonic()
        if start_step:
            self._write([Event(step=start_step, session_log=SessionLog(status=SessionLog.START))])

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes scalars."""
        now = time.time()
        self._write([Event(wall_time=now, step=step, summary=scalar(name, value)) for name, value in metrics.items()])

    def close(self) -> None:
        """Writes what is left."""
        self._write([], last=True)

    def _write(self, events: list[Event], *, last: bool = False) -> None:
        if self._writer is None:
            return
        try:
            for event in events:
                self._writer.write_event(event)
            if last:
                self._writer.close()
            elif time.monotonic() - self._flushed > _FLUSH_SECONDS:
                self._writer.flush()
                self._flushed = time.monotonic()
        except OSError as error:
            self._writer = None
            print(f"note: TensorBoard's events can no longer be written ({error.strerror or error})", flush=True)
