"""Import of a folder of images and a file of captions as a TFDS data set.

The result can be read without this package: `tfds.builder_from_directory(out)`.
"""

import collections
import concurrent.futures
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
from cbalign.data.datasets.caption_files import ImageFinder, read_pairs
from cbalign.data.image_files import MAX_PIXELS, BadImage, encode_file, pillow_limit
from cbalign.data.progress import Progress
from cbalign.errors import UserError

REPORT = "import_report.json"
_MAX_PER_SHARD = 2048
# Number of images processed at a time: enough to use all cores, few enough to limit memory.
_CHUNK = 256


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
) -> dict:
    """Writes images and captions as a TFDS data set with the split `train` and, if requested, `val` and `test`.

    Rows of one image become one record with several captions. Images that have a caption in common (ignoring case and
    spacing) are joint positives: they share an id, transitively, and are never assigned to different splits. Unusable
    rows are skipped and listed in `import_report.json`.

    Args:
      images: folder of the images.
      captions: CSV, TSV, JSON or JSON Lines file; see `caption_files.read_pairs`.
      out: folder to write; must be new or empty. Nothing is left in it on failure.
      name: name of the data set; derived from `out` if None.
      max_bad: largest share of the rows that may be unusable.
      val: share of the images for `val`; 0 for none.
      test: share of the images for `test`; 0 for none.
      seed: seed of the splits and of the order.
      max_side: larger images are downscaled to this length of the long side, in pixels.
      max_pixels: images with more pixels are rejected without decoding.

    Returns:
      The report: `rows`, `images`, `ids`, `splits` (records by split), `skipped_rows` and `skipped` (by reason,
      `rows` and the `files` as written in the caption file).

    Raises:
      UserError: an argument is out of range, an input is missing or malformed, `out` is taken, or too many rows or
        all images are unusable.
    """
    _check(max_bad, val, test, max_side, max_pixels)
    target = pathlib.Path(os.path.abspath(out))
    name = _dataset_name(name, target)
    finder = ImageFinder(images)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{out} exists and is not empty: give --out a new folder")
    rows = _Rows(captions, finder, max_bad)
    ids = rows.ids()
    with _staging(target) as folder, pillow_limit(max_pixels):
        splits = _assign_splits(ids, val, test, seed)
        counts = _write(_writer(folder, name), rows, ids, splits, seed, max_side, max_pixels)
        report = rows.report() | {"ids": len({ids[path] for path in rows.captions}), "splits": counts}
        (folder / REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return report


class _Rows:
    """The usable rows grouped by image, and a record of the skipped ones.

    Attributes:
      captions: {image file: its distinct captions}.
    """

    def __init__(self, file: str | os.PathLike, finder: ImageFinder, max_bad: float):
        self.captions: dict[pathlib.Path, list[str]] = {}
        self._file, self._folder, self._max_bad = file, finder.folder, max_bad
        self._total = 0
        self._rows_of = collections.Counter()
        self._written: dict[pathlib.Path, str] = {}
        self._skipped = collections.defaultdict(lambda: {"rows": 0, "files": []})
        found: dict[str, pathlib.Path | None] = {}
        for written, caption in read_pairs(file):
            self._total += 1
            if written not in found:
                found[written] = finder.find(written)
            self._add(written, found[written], " ".join(caption.split()))
        self._check_share()

    def _add(self, written: str, path: pathlib.Path | None, caption: str) -> None:
        if not caption or path is None:
            self._skip("empty caption" if path else "missing", written, 1)
            return
        known = self.captions.setdefault(path, [])
        self._rows_of[path] += 1
        self._written.setdefault(path, written)
        if caption.casefold() not in map(str.casefold, known):
            known.append(caption)

    def drop(self, path: pathlib.Path, reason: str) -> None:
        """Skips an image with all its rows; raises UserError if too many rows are skipped."""
        del self.captions[path]
        self._skip(reason, self._written[path], self._rows_of[path])
        self._check_share()

    def ids(self) -> dict[pathlib.Path, int]:
        """Numbers the images in order of appearance; images linked by a common caption get the same number.

        Links through an image that later turns out to be broken remain: detecting it now would decode all images twice.
        """
        parent: dict = {}

        def root(node):
            while parent.setdefault(node, node) != node:
                parent[node] = node = parent[parent[node]]
            return node

        for path, captions in self.captions.items():
            for caption in captions:
                parent[root(caption.casefold())] = root(path)
        numbers: dict = {}
        return {path: numbers.setdefault(root(path), len(numbers)) for path in self.captions}

    def name(self, path: pathlib.Path) -> str:
        """The image's unique name: its path relative to the image folder, or the full path if it is elsewhere."""
        return path.relative_to(self._folder).as_posix() if path.is_relative_to(self._folder) else path.as_posix()

    def report(self) -> dict:
        """Returns the report on rows and images; complete once all bad images have been dropped."""
        return {
            "rows": self._total,
            "skipped_rows": self._bad(),
            "skipped": dict(sorted(self._skipped.items())),
            "images": len(self.captions),
        }

    def _skip(self, reason: str, written: str, rows: int) -> None:
        entry = self._skipped[reason]
        entry["rows"] += rows
        # Comparing with the last one suffices in the usual case that the rows of an image are adjacent.
        if entry["files"][-1:] != [written]:
            entry["files"].append(written)

    def _bad(self) -> int:
        return sum(entry["rows"] for entry in self._skipped.values())

    def _check_share(self) -> None:
        bad = self._bad()
        if bad > self._max_bad * self._total:
            reasons = ", ".join(f"{entry['rows']} {reason}" for reason, entry in sorted(self._skipped.items()))
            example = next(iter(self._skipped.values()))["files"][0]
            raise UserError(
                f"{bad} of {self._total} rows of {self._file} are unusable ({reasons}; for example {example!r}), more "
                f"than --max-bad={self._max_bad:g} allows: repair them, check --images, or raise --max-bad"
            )
        if not self.captions:
            raise UserError(f"{self._file} has no row with a caption and a readable image")


def _check(max_bad: float, val: float, test: float, max_side: int, max_pixels: int) -> None:
    if not 0 <= max_bad <= 1:
        raise UserError(f"--max-bad={max_bad:g} is not a share: give a number from 0 to 1")
    if val < 0 or test < 0 or not val + test < 1:
        raise UserError(f"--val={val:g} and --test={test:g} leave nothing to train on: give shares with a sum below 1")
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
    """Assigns each id a random split as long as its images fit into the requested share; the rest is `train`."""
    sizes = collections.Counter(ids.values())
    room = {"test": round(test * len(ids)), "val": round(val * len(ids))}
    splits = {}
    for number in np.random.default_rng([seed, 0]).permutation(sorted(sizes)).tolist():
        splits[number] = next((split for split, left in room.items() if sizes[number] <= left), "train")
        if splits[number] != "train":
            room[splits[number]] -= sizes[number]
    return splits


class _staging:
    """A temporary folder next to `target` that replaces it on success and is removed on failure."""

    def __init__(self, target: pathlib.Path):
        self._target = target

    def __enter__(self) -> pathlib.Path:
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._folder = tempfile.mkdtemp(prefix=f".{self._target.name}.", dir=self._target.parent)
            # mkdtemp creates folders that only their owner can enter; data sets are meant to be shared.
            os.chmod(self._folder, 0o755)
        except OSError as error:
            raise UserError(f"cannot write to {self._target.parent} ({error.strerror}): give another --out") from None
        return pathlib.Path(self._folder)

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            os.rename(self._folder, self._target)
        else:
            shutil.rmtree(self._folder, ignore_errors=True)


def _encoded(paths: list[pathlib.Path], max_side: int, max_pixels: int) -> Iterator[list[tuple]]:
    """Yields chunks of (path, encoded image or the reason why it is unusable), in order."""

    def one(path: pathlib.Path) -> bytes | str:
        try:
            return encode_file(path, max_side, max_pixels)
        except BadImage as error:
            return str(error)

    # Threads suffice: Pillow releases the interpreter lock while it decodes.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(paths), _CHUNK):
            chunk = paths[start : start + _CHUNK]
            yield list(zip(chunk, pool.map(one, chunk)))


def _write(
    writer: tfds.core.SequentialWriter,
    rows: _Rows,
    ids: dict[pathlib.Path, int],
    splits: dict[int, str],
    seed: int,
    max_side: int,
    max_pixels: int,
) -> dict[str, int]:
    """Writes the records in random order, so that any part of a split is a fair sample; returns counts by split."""
    counts = collections.Counter()
    paths = list(ids)
    paths = [paths[index] for index in np.random.default_rng([seed, 1]).permutation(len(paths))]
    with Progress("importing", len(paths), unit="image") as progress:
        for chunk in _encoded(paths, max_side, max_pixels):
            records = collections.defaultdict(list)
            for path, image in chunk:
                if isinstance(image, str):
                    rows.drop(path, image)
                    continue
                record = {"image": image, "captions": rows.captions[path], "id": ids[path], "name": rows.name(path)}
                records[splits[ids[path]]].append(record)
            # A split is created with its first record, since TFDS cannot read empty splits.
            writer.initialize_splits([split for split in records if split not in counts])
            writer.add_examples(records)
            counts.update({split: len(added) for split, added in records.items()})
            progress.update(len(chunk))
    writer.close_all()
    return {split: counts[split] for split in ("train", "val", "test") if counts[split]}


def _writer(folder: pathlib.Path, name: str) -> tfds.core.SequentialWriter:
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=name, version=tfds.core.Version("1.0.0"), data_dir=os.fspath(folder), module_name=""
    )
    features = tfds.features.FeaturesDict(schema.captions())
    info = tfds.core.DatasetInfo(builder=identity, description="Imported images and captions.", features=features)
    return tfds.core.SequentialWriter(info, max_examples_per_shard=_MAX_PER_SHARD)
