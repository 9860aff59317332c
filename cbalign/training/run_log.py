"""What a run leaves for others to read: a log, metrics as JSON lines, means over epochs, TensorBoard events, a bar."""

import io
import json
import logging
import math
import sys
import time

from etils import epath
from tensorboardX import SummaryWriter, record_writer
from tqdm import tqdm

from cbalign.training.epoch_means import EpochMeans


class RunLog:
    """Writes `train.log`, `metrics.jsonl`, `losses.json` and TensorBoard events into a workdir, and shows progress.

    Only the process with `active` writes; the others' calls do nothing.
    """

    def __init__(self, workdir, *, start_step: int, steps: int, steps_per_epoch: int, active: bool = True):
        """Opens the files; lines of `metrics.jsonl` beyond start_step, left by a killed run, are dropped."""
        self.active = active
        if not active:
            return
        self.workdir = epath.Path(workdir)
        self.metrics_file = self.workdir / "metrics.jsonl"
        self.epochs = EpochMeans(steps_per_epoch, self._drop_lines_after(start_step))
        self.events = SummaryWriter(str(self.workdir / "tensorboard"), purge_step=start_step or None)
        self.logger = _logger(self.workdir / "train.log")
        self.bar = tqdm(
            total=steps, initial=start_step, unit="step", desc="train", dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )

    def _drop_lines_after(self, step: int) -> list[str]:
        """Returns the lines that are kept."""
        if not self.metrics_file.exists():
            return []
        kept = []
        for line in self.metrics_file.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError):
                continue  # a line cut off by a kill
        self.metrics_file.write_text("".join(kept))
        return kept

    def log(self, message: str) -> None:
        """A line for people, in the log and on the screen."""
        if not self.active:
            return
        self.logger.info(message)
        if not self.bar.disable:
            self.bar.write(message)

    def write(self, step: int, metrics: dict) -> None:
        """One JSON line {"step", "time", **metrics} and the same as TensorBoard scalars."""
        if not self.active:
            return
        with self.metrics_file.open("a") as file:
            file.write(json.dumps({"step": step, "time": round(time.time(), 3), **_finite(metrics)}) + "\n")
        for name, value in metrics.items():
            if math.isfinite(value):
                self.events.add_scalar(name, value, step)

    def write_training(self, step: int, metrics: dict) -> None:
        """Means over the steps since the last such line, as "train/NAME"; `losses.json` has them by epoch."""
        if not self.active:
            return
        metrics = {f"train/{name}": value for name, value in metrics.items()}
        self.write(step, metrics)
        self.epochs.add(step, metrics)
        (self.workdir / "losses.json").write_text(json.dumps(self.epochs.as_dict(), indent=2) + "\n")

    def advance(self, step: int, loss: float | None = None) -> None:
        """Moves the bar to `step`."""
        if self.active:
            self.bar.update(step - self.bar.n)
            if loss is not None:
                self.bar.set_postfix(loss=f"{loss:.3f}", refresh=False)

    def close(self) -> None:
        """Flushes and closes everything."""
        if self.active:
            self.bar.close()
            self.events.close()


def _finite(metrics: dict) -> dict:
    # NaN is not JSON; null is.
    return {name: (value if math.isfinite(value) else None) for name, value in metrics.items()}


class _LogFile(logging.Handler):
    """Appends each line to a file, which may lie in a bucket."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def emit(self, record):
        with self.path.open("a") as file:
            file.write(self.format(record) + "\n")


class _BucketEvents:
    """An events file in a bucket, written anew at every flush; tensorboardX's own asks for Google's client library."""

    def __init__(self, path: str):
        self.path, self.content = epath.Path(path), io.BytesIO()

    def write(self, data: bytes):
        self.content.write(data)

    def flush(self):
        self.path.write_bytes(self.content.getvalue())

    def close(self):
        self.flush()


class _BucketEventsFactory:
    """How tensorboardX makes `_BucketEvents`."""

    def open(self, path):
        return _BucketEvents(path)

    def directory_check(self, path):
        epath.Path(path).mkdir(parents=True, exist_ok=True)


record_writer.register_writer_factory("gs", _BucketEventsFactory())


def _logger(path) -> logging.Logger:
    """A logger that writes to the file, and to the screen where no bar is shown there."""
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
