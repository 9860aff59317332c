"""Import of a folder of images and a file of captions as a TFDS data set.

The result can be read without this package: `tfds.builder_from_directory(out)`.
"""

import collections
import concurrent.futures
import dataclasses
import fcntl
import glob
import hashlib
import json
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from cbalign.data.datasets import schema
from cbalign.data.datasets.disk_errors import DISK_ERRORS, cannot_write
from cbalign.data.datasets.folder_rows import Rows
from cbalign.data.datasets.image_finder import ImageFinder
from cbalign.data.datasets.image_ids import number_images
from cbalign.data.image_files import MAX_PIXELS, BadImage, encode_file, pillow_limit
from cbalign.data.progress import Progress
from cbalign.data.stored_images import check_png
from cbalign.data.text_lengths import length_notes
from cbalign.errors import UserError
from cbalign.storage import write_atomically

REPORT = "import_report.json"
_MAX_PER_SHARD = 2048
# Number of images processed at a time: enough to use all cores, few enough to limit memory.
_CHUNK = 256
# Sums of shares such as 0.7 + 0.3 differ from 1 by less.
_ROUNDING = 1e-9


def import_folder(
    images: str | os.PathLike,
    captions: str | os.PathLike,
    out: str | os.PathLike,
    *,
    name: str | None = None,
    max_bad: float = 0.05,
    val: float = 0.0,
    test: float = 0.1,
    seed: int = 0,
    max_side: int = 512,
    max_pixels: int = MAX_PIXELS,
    joint_captions: bool = False,
) -> dict:
    """Writes images and captions as a TFDS data set with the split `train` and, if requested, `val` and `test`.

    Where the shares of `val` and `test` add up to 1, there is no `train`: the data set is for evaluation alone.

    Rows of one image become one record with several captions. Images with the same content, and images that have a
    caption in common (ignoring case and spacing) that no more than a few share, are joint positives: they share an id,
    transitively, and are never assigned to different splits. Unusable rows are skipped and listed in
    `import_report.json`.

    Args:
      images: folder of the images.
      captions: CSV, TSV, JSON, JSON Lines or Parquet file; see `caption_files.read_pairs`.
      out: folder to write; must be new or empty. Nothing is left in it on failure.
      name: name of the data set; derived from `out` if None.
      max_bad: largest share of the rows that may be unusable.
      val: share of the images for `val`; 0 for none.
      test: share of the images for `test`; 0 for none.
      seed: seed of the splits and of the order.
      max_side: larger images are downscaled to this length of the long side, in pixels.
      max_pixels: images with more pixels are rejected without decoding.
      joint_captions: whether captions make joint positives of all images that share them, however many.

    Returns:
      The report: `rows`, `images`, `ids`, `splits` (records by split), `skipped_rows` and `skipped` (by reason,
      `rows` and the `files` as written in the caption file), `shared` (see `image_ids.Shared`) and `notes`, remarks
      for the user.

    Raises:
      UserError: an argument is out of range, an input is missing or malformed, `out` is taken, or too many rows or
        all images are unusable.
    """
    _check(max_bad, val, test, max_side, max_pixels, seed)
    target = pathlib.Path(os.path.abspath(out))
    name = _dataset_name(name, target)
    finder = ImageFinder(images)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{out} exists and is not empty: give --out a new folder")
    rows = Rows(captions, finder, max_bad)
    with _staging(target) as folder, pillow_limit(max_pixels):
        with _Spool(folder) as spool:
            _encode(rows, spool, seed, max_side, max_pixels)
            ids, shared = number_images(rows.captions, spool.digests, joint_captions=joint_captions)
            splits = _assign_splits(ids, val, test, seed)
            counts = _write(_writer(folder, name), rows, spool, ids, splits)
        notes = [
            *rows.notes,
            *finder.notes(),
            *finder.leftovers(rows.paths),
            *shared.lines(len(ids)),
            *_split_notes(ids, counts, val, test),
            *length_notes(caption for captions in rows.captions.values() for caption in captions),
        ]
        report = rows.report() | {
            "ids": len(set(ids.values())),
            "splits": counts,
            "shared": dataclasses.asdict(shared),
            "notes": notes,
        }
        write_atomically(folder / REPORT, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return report


def _check(max_bad: float, val: float, test: float, max_side: int, max_pixels: int, seed: int) -> None:
    if not 0 <= max_bad <= 1:
        raise UserError(f"--max-bad={max_bad:g} is not a share: give a number from 0 to 1")
    if val < 0 or test < 0 or not val + test <= 1 + _ROUNDING:
        raise UserError(
            f"--val={val:g} and --test={test:g} are more than all images: give shares that sum to at most 1"
        )
    if seed < 0:
        raise UserError(f"--seed={seed} must be 0 or more")
    if max_side < 1 or max_pixels < 1:
        raise UserError(f"--max-side={max_side} and --max-pixels={max_pixels}: both must be at least 1")


def _dataset_name(name: str | None, target: pathlib.Path) -> str:
    """Validates the name, or derives one from the target folder: TFDS allows letters, digits and underscores."""
    if name is None:
        name = re.sub(r"\W", "_", target.name, flags=re.ASCII).lower()
        return name if re.match("[a-z]", name) else f"data_{name}"
    if not re.fullmatch(r"[A-Za-z]\w*", name, flags=re.ASCII):
        raise UserError(f"--name={name} is not a valid name: use a letter followed by letters, digits and underscores")
    return name


def _assign_splits(ids: dict[pathlib.Path, int], val: float, test: float, seed: int) -> dict[int, str]:
    """Assigns each id a random split as long as its images fit into the requested share; the rest is `train`.

    Where nothing is to be left to train on, the rest goes to the larger of the others.
    """
    sizes = collections.Counter(ids.values())
    room = {"test": round(test * len(ids)), "val": round(val * len(ids))}
    rest = "train" if val + test < 1 - _ROUNDING else max(room, key=lambda split: room[split])
    splits = {}
    for number in np.random.default_rng([seed, 0]).permutation(sorted(sizes)).tolist():
        splits[number] = next((split for split, left in room.items() if sizes[number] <= left), rest)
        if splits[number] != "train":
            room[splits[number]] -= sizes[number]
    return splits


class _staging:
    """A temporary folder next to `target` that replaces it on success and is removed on failure.

    Its process holds a lock on it. The next import of the same target removes those without: their process was killed.
    """

    def __init__(self, target: pathlib.Path):
        self._target = target
        self._prefix = f".{target.name}.importing-"

    def __enter__(self) -> pathlib.Path:
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._remove_abandoned()
            self._folder = tempfile.mkdtemp(prefix=self._prefix, dir=self._target.parent)
            self._lock = _lock(self._folder)
            # mkdtemp creates folders that only their owner can enter; data sets are meant to be shared.
            os.chmod(self._folder, 0o755)
        except OSError as error:
            raise UserError(cannot_write(self._target.parent, error, "--out")) from None
        return pathlib.Path(self._folder)

    def __exit__(self, kind, error, trace) -> None:
        try:
            if kind is None:
                os.rename(self._folder, self._target)
                return
            shutil.rmtree(self._folder, ignore_errors=True)
            if isinstance(error, DISK_ERRORS):
                raise UserError(cannot_write(self._target.parent, error, "--out")) from None
        finally:
            if self._lock is not None:
                os.close(self._lock)

    def _remove_abandoned(self) -> None:
        for folder in self._target.parent.glob(f"{glob.escape(self._prefix)}*"):
            lock = _lock(folder)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _lock(folder: str | os.PathLike) -> int | None:
    """A descriptor that locks a folder until it is closed; None where another process has the lock."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # it was renamed meanwhile
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # or the file system has no locks
        os.close(descriptor)
        return None
    return descriptor


def _encoded(paths: list[pathlib.Path], max_side: int, max_pixels: int) -> Iterator[list[tuple]]:
    """Yields chunks of (path, encoded image or the reason why it is unusable), in order."""

    def one(path: pathlib.Path) -> bytes | str:
        try:
            encoded = encode_file(path, max_side, max_pixels)
            check_png(path)
            return encoded
        except BadImage as error:
            return str(error)

    # Threads suffice: Pillow releases the interpreter lock while it decodes.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(paths), _CHUNK):
            chunk = paths[start : start + _CHUNK]
            yield list(zip(chunk, pool.map(one, chunk)))


class _Spool:
    """Encoded images in one temporary file: what the splits depend on is known when all have been decoded.

    Attributes:
      digests: {image file: digest of its encoded pixels}, in the order of writing.
    """

    def __init__(self, folder: pathlib.Path):
        self._path = folder / ".images"
        self._places: dict[pathlib.Path, tuple[int, int]] = {}
        self.digests: dict[pathlib.Path, bytes] = {}

    def __enter__(self):
        self._file = self._path.open("w+b")
        return self

    def __exit__(self, *_):
        self._file.close()
        self._path.unlink()

    def add(self, path: pathlib.Path, image: bytes) -> None:
        """Appends an image."""
        self._places[path] = self._file.tell(), len(image)
        self.digests[path] = hashlib.blake2b(image, digest_size=16).digest()
        self._file.write(image)

    def read(self, path: pathlib.Path) -> bytes:
        """The image of a file."""
        start, size = self._places[path]
        self._file.seek(start)
        return self._file.read(size)


def _encode(rows: Rows, spool: _Spool, seed: int, max_side: int, max_pixels: int) -> None:
    """Decodes all images in random order, so that any part of a split is a fair sample; drops the unusable ones."""
    paths = list(rows.captions)
    paths = [paths[index] for index in np.random.default_rng([seed, 1]).permutation(len(paths))]
    with Progress("importing", len(paths), unit="image") as progress:
        for chunk in _encoded(paths, max_side, max_pixels):
            for path, image in chunk:
                if isinstance(image, str):
                    rows.drop(path, image)
                else:
                    spool.add(path, image)
            progress.update(len(chunk))


def _write(
    writer: tfds.core.SequentialWriter, rows: Rows, spool: _Spool, ids: dict[pathlib.Path, int], splits: dict[int, str]
) -> dict[str, int]:
    """Writes the records in the order of the spool; returns counts by split."""
    counts = collections.Counter()
    paths = list(spool.digests)
    for start in range(0, len(paths), _CHUNK):
        records = collections.defaultdict(list)
        for path in paths[start : start + _CHUNK]:
            record = {
                "image": spool.read(path),
                "captions": rows.captions[path],
                "id": ids[path],
                "name": rows.name(path),
            }
            records[splits[ids[path]]].append(record)
        # A split is created with its first record, since TFDS cannot read empty splits.
        writer.initialize_splits([split for split in records if split not in counts])
        writer.add_examples(records)
        counts.update({split: len(added) for split, added in records.items()})
    writer.close_all()
    return {split: counts[split] for split in ("train", "val", "test") if counts[split]}


def _split_notes(ids: dict[pathlib.Path, int], counts: dict[str, int], val: float, test: float) -> list[str]:
    """A line for each split that is smaller than asked for, because images that share an id stay together."""
    notes, largest = [], max(collections.Counter(ids.values()).values())
    for split, share in (("val", val), ("test", test)):
        wanted, found = round(share * len(ids)), counts.get(split, 0)
        if found < wanted:
            notes.append(
                f"{split} has {found:,} of the {wanted:,} images asked for: images of one id stay in one split, and "
                f"the largest id has {largest:,}"
            )
        elif share and not wanted:
            notes.append(f"{split} is empty: {share:g} of {len(ids)} images is less than one; raise --{split}")
    return notes


def _writer(folder: pathlib.Path, name: str) -> tfds.core.SequentialWriter:
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=name, version=tfds.core.Version("1.0.0"), data_dir=os.fspath(folder), module_name=""
    )
    features = tfds.features.FeaturesDict(schema.captions())
    info = tfds.core.DatasetInfo(builder=identity, description="Imported images and captions.", features=features)
    return tfds.core.SequentialWriter(info, max_examples_per_shard=_MAX_PER_SHARD)
