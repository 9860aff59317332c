"""One row at full size for two steps, on miniature data: whether it fits, and how long a step takes."""

from __future__ import annotations

import json
import math
import pathlib
import resource
import time
from collections.abc import Callable, Iterable

from cbalign.config import load_config
from cbalign.errors import UserError
from cbalign.experiments.rehearsal import checkpoints
from cbalign.experiments.suites import get_suite
from cbalign.storage import write_atomically

_STEPS = 2
_CPU_ROWS = 64  # of a micro-batch on a CPU, whose memory no full batch fits


def train_full(
    folder: pathlib.Path,
    call: Callable[[list[str]], int],
    *,
    row: str,
    overrides: Iterable[str] = (),
    say: Callable[[str], None] = print,
) -> None:
    """Trains, and says what it took.

    Args:
      folder: of a rehearsal that is prepared.
      call: runs the arguments of a `cbalign` command and returns its exit code.
      row: of the suite paper.
      overrides: further fields to change, "a.b=value" each.
      say: called with a line for the user.

    Raises:
      UserError: no such row, or the training failed.
    """
    import jax

    found = get_suite("paper").row(row)
    name, overrides = found.config, (*found.overrides, *overrides)
    config, workdir = load_config(name, overrides), folder / "full" / f"{row}_{int(time.time())}"
    words = checkpoints.vocabulary(size=config.data.vocabulary_size)
    vocabulary = write_atomically(folder / "checkpoints" / "full_size" / "vocab.txt", "\n".join(words) + "\n")
    changes = [
        f"train.steps={_STEPS}",
        "train.epochs=0",
        "train.log_steps=1",
        "eval.splits=()",
        "eval.best_split=",
        "init.weights=()",
        f"data.vocabulary={vocabulary}",
        f"data.name={_repeated(config.data.name, config.train.batch_size)}",
    ]
    if jax.default_backend() == "cpu":
        parts = max(config.train.batch_size // _CPU_ROWS, 1)
        changes += [f"train.microbatches={parts}", "model.remat=True"]
        say(f"on a CPU the batch of {config.train.batch_size} is taken in {parts} part(s), with rematerialisation")
    flags = [f"--config.{text}" for text in (*overrides, *changes)]
    begun = time.monotonic()
    if code := call(["train", f"--config={name}", f"--workdir={workdir}", *flags]):
        raise UserError(f"rehearsal failed: {row} at full size ended with code {code}")
    seconds = time.monotonic() - begun
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    speed = next(line["train/pairs_per_second"] for line in lines if line["step"] == _STEPS)
    step = config.train.batch_size / speed if speed else math.nan
    say(
        f"{row} at full size: {_STEPS} steps of {config.train.batch_size} records on {jax.device_count()} x "
        f"{jax.devices()[0].device_kind}, {seconds:.0f} s with compilation, {step:.2f} s a step, {_memory()}"
    )


def _repeated(name: str, batch_size: int) -> str:
    """A miniature data set so often that it has several batches; each part has 40 records or more."""
    times = math.ceil(4 * batch_size / 40)
    return "+".join(f"{part.partition('*')[0]}*{times}" for part in name.split("+"))


def _memory() -> str:
    """The largest memory in use so far, of a device as it reports it, and of this process."""
    import jax

    process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux
    found = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
    peaks = [peak for peak in found if peak]
    device = f"{max(peaks) / 2**30:.1f} GiB on a device at most, " if peaks else ""
    return f"{device}{process:.1f} GiB in the process"
