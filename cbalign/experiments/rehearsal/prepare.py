"""What a rehearsal needs before its first run: miniature folders, built data sets, converted checkpoints."""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Callable

from etils import epath

from cbalign.config import load_config
from cbalign.errors import UserError

PRETRAINING = "paper/pretrain"
REHEARSE = "rehearse=True"
_MARK = ".rehearsal"  # what else is in the folder is written, and removed, without asking
BATCH = 16  # of a miniature config, see `config_miniature.py`


def scale_for(devices: int) -> int:
    """How many times a batch of 16 must grow to give each of so many devices a record.

    Raises:
      UserError: more devices than a miniature has entries in its queues.
    """
    limit = load_config(PRETRAINING, (REHEARSE,)).queue.size
    if not 1 <= devices <= limit:
        raise UserError(f"--devices={devices}: a rehearsal is for 1 to {limit} devices")
    scale = 1
    while BATCH * scale % devices:
        scale *= 2
        if BATCH * scale > limit:
            raise UserError(f"--devices={devices}: a rehearsal is for a power of two of devices")
    return scale


def overrides(devices: int) -> tuple[str, ...]:
    """The fields that a rehearsal on so many devices changes in every row, "a.b=value" each."""
    scale = scale_for(devices)
    return (REHEARSE, *([f"train.batch_size={BATCH * scale}"] if scale > 1 else []))


def prepare(
    folder: pathlib.Path,
    call: Callable[[list[str]], int],
    *,
    store: str = "",
    devices: int = 1,
    say: Callable[[str], None] = print,
) -> None:
    """Writes folders and checkpoints, and runs the commands that a user runs on the real ones.

    Args:
      folder: of the rehearsal, on this machine; what is there already is kept.
      call: runs the arguments of a `cbalign` command and returns its exit code.
      store: where the workers find data sets and weights, such as a bucket; the folder by default.
      devices: that the runs will have.
      say: called with a line for the user.

    Raises:
      UserError: the folder holds other things, or a command failed.
    """
    from cbalign.experiments.rehearsal import checkpoints, official_folders
    from cbalign.models.towers import sizes_of

    store, done = store or str(folder), folder / "prepared"
    wanted = f"{store} scale {scale_for(devices)}\n"
    if done.exists():
        if done.read_text() != wanted:
            raise UserError(
                f"{folder} holds another rehearsal ({done.read_text().strip()}); remove it, or name another"
            )
        return
    _claim(folder)
    shutil.rmtree(folder / "official", ignore_errors=True)  # of a preparation that was interrupted
    folders = official_folders.write_folders(folder / "official", scale=scale_for(devices))
    say(f"{len(folders)} miniature folders in the official formats: {folder / 'official'}")
    for name, official in folders.items():
        _run(call, ["data", "build", name, f"--manual-dir={official}", f"--data-dir={store}/tfds"], say)
    config = load_config(PRETRAINING, (REHEARSE,))
    sizes = sizes_of(config.model, image_size=config.data.image_size, vocab_size=config.data.vocabulary_size)
    deit = checkpoints.write_deit(folder / "checkpoints", sizes)
    bert = checkpoints.write_bert(folder / "checkpoints", sizes, checkpoints.vocabulary())
    for source, checkpoint, changed in (("deit", deit, []), ("bert", bert, [f"--config.data.vocabulary={bert}"])):
        if (epath.Path(store) / "weights" / source / "weights.json").exists():
            continue
        flags = [f"--source={source}", f"--checkpoint={checkpoint}", f"--config={PRETRAINING}"]
        out = f"--out={store}/weights/{source}"
        _run(call, ["convert", *flags, f"--config.{REHEARSE}", *changed, out], say)
    done.write_text(wanted)


def _claim(folder: pathlib.Path) -> None:
    """Marks a new or empty folder as a rehearsal's; raises UserError where it holds something else."""
    mark = folder / _MARK
    if folder.is_dir() and any(folder.iterdir()) and not mark.exists():
        raise UserError(f"--out={folder} holds other things and is not the folder of a rehearsal; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()


def weights(store: os.PathLike | str) -> str:
    """What the pretrainings of a rehearsal start from, as `cbalign suite --weights` takes it."""
    return ",".join(f"{store}/weights/{source}" for source in ("deit", "bert"))


def suite_flags(store: os.PathLike | str, devices: int) -> list[str]:
    """The flags of `cbalign suite --suite=paper` for a rehearsal whose data and runs are in `store`."""
    changed = [f"--config.{text}" for text in overrides(devices)]
    return [f"--runs={store}/runs", f"--weights={weights(store)}", *changed]


def _run(call: Callable[[list[str]], int], arguments: list[str], say: Callable[[str], None]) -> None:
    say("cbalign " + " ".join(arguments))
    if code := call(arguments):
        raise UserError(f"rehearsal failed: cbalign {' '.join(arguments)} ended with code {code}")
