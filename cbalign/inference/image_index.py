"""The features of a folder's images, stored from one search to the next, and the ranking by them."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import os
import pathlib
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from cbalign.data.file_tree import describe
from cbalign.data.image_files import MAX_DECODED_PIXELS, BadImage, pillow_limit, read_resized
from cbalign.errors import UserError
from cbalign.inference import index_file
from cbalign.inference.encoder import BATCH, Encoder
from cbalign.inference.folder_scan import scan_folder
from cbalign.inference.index_file import Entry, StoredIndex

# Batches that are read ahead of the encoder.
_AHEAD = 4
# Seconds of work between two stores, so that a killed search loses no more.
_STORE_SECONDS = 45
# Scores of which only the largest is compared at first.
_BLOCK = 512


class Hit(NamedTuple):
    """One image of an answer: its cosine score in [-1, 1], and its path."""

    score: float
    path: str


class Skipped(NamedTuple):
    """An image that could not be read, and why."""

    path: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Index:
    """The images of a folder, ready to be searched.

    Attributes:
      paths: n paths in sorted order, each starting with the folder's name as it was given.
      features: float32 [n, d], rows of unit length; read-only, a stored file mapped into memory where that is possible.
      skipped: files that look like images and cannot be read.
      left_out: {kind: how many} of the folder's other files, see `folder_scan.Scan`.
      encoded: how many of the n features had to be computed; the others were stored before.
      note: why the features could not be stored, or "".
    """

    paths: list[str]
    features: np.ndarray
    skipped: list[Skipped]
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)
    encoded: int = 0
    note: str = ""

    @property
    def notes(self) -> list[str]:
        """What a user should know of the index besides `skipped`, a sentence each."""
        left_out = [f"files that are not searched: {describe(self.left_out)}"] if self.left_out else []
        return left_out + ([self.note] if self.note else [])


def search(index: Index, query: np.ndarray, top: int) -> list[Hit]:
    """The best images of an index, best first; equal scores in the order of the paths.

    Args:
      index: from `index_folder`.
      query: float32 [d] of unit length, from `Encoder.text` or `Encoder.image`.
      top: how many; fewer where the index has no more.
    """
    scores = index.features @ query
    return [Hit(float(scores[i]), index.paths[i]) for i in best_rows(scores, top)]


def best_rows(scores: np.ndarray, top: int) -> np.ndarray:
    """Rows of the `top` largest of scores [n], largest first, equal ones in their order: int64 [min(top, n)]."""
    if top >= len(scores):
        return np.argsort(-scores, kind="stable")
    rows = np.arange(len(scores))
    # The `top`-th largest of the blocks' maxima bounds the border from below: few rows are left to be partitioned.
    blocks = len(scores) // _BLOCK
    if top < blocks:
        maxima = scores[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)
        rows = np.flatnonzero(scores >= np.partition(maxima, blocks - top)[blocks - top])
    # Partitioning alone would take any of several equal scores at the border.
    border = np.partition(scores[rows], len(rows) - top)[len(rows) - top]
    rows = rows[scores[rows] >= border]
    return rows[np.argsort(-scores[rows], kind="stable")][:top]


def index_folder(
    folder: os.PathLike | str,
    *,
    encoder: Encoder,
    cache: os.PathLike | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Index:
    """Encodes the images of a folder and its sub-folders; what is unchanged since the last time is not read again.

    The features are stored in the cache, each file's by (relative path, size, time of change) and all together by the
    weights of the encoder, see `index_file`.

    Args:
      folder: of images, in any format Pillow reads; hidden files and folders are passed over, links are followed.
      encoder: of the model.
      cache: folder of the stored features, as `search/` in the workdir of the encoder's run; by default one for each
        model among the user's cache files.
      progress: called as progress(done, total) while files are read.

    Raises:
      UserError: no such folder, or no image in it that can be read.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; name a folder of images")
    scan = scan_folder(folder)
    files = scan.files
    if not files:
        found = f" (found {describe(scan.left_out)})" if scan.left_out else ""
        raise UserError(f"no images in {folder} or below it{found}; name a folder of JPEG, PNG or other image files")
    file = index_file.locate(cache, encoder.fingerprint, folder)
    stored, encoded, note = index_file.read(file, encoder.fingerprint), 0, ""
    if stored is None or not stored.holds(files):
        stored, encoded, note = _update(encoder, folder, files, stored, file, progress)
    prefix = str(folder / "x")[:-1]
    without = set(stored.without.tolist())
    paths = [prefix + name for row, name in enumerate(files) if row not in without]
    skipped = [
        Skipped(prefix + name, reason)
        for name, reason in zip((name for row, name in enumerate(files) if row in without), stored.reasons)
    ]
    if not paths:
        raise UserError(
            f"none of the {len(skipped)} images in {folder} can be read "
            f"({skipped[0].path}: {skipped[0].reason}); name another folder"
        )
    return Index(paths, stored.features, skipped, dict(scan.left_out), encoded, note)


def _update(encoder, folder, files, stored, file, progress) -> tuple[StoredIndex, int, str]:
    """Reads what is new or changed, and stores all.

    Returns:
      (what is now known of exactly these files, how many images were encoded, why it could not be stored or "").
    """
    known = stored.entries() if stored else {}
    entries = {name: known[name] for name, state in files.items() if name in known and known[name].state == state}
    missing = [name for name in files if name not in entries]

    def store():
        return index_file.write(file, encoder.fingerprint, entries)

    try:
        _encode(encoder, folder, files, missing, entries, progress, store)
    finally:
        # Also after an interruption, so that finished work is not repeated.
        note = store()
        index_file.remove_abandoned(file)
    encoded = sum(entries[name].feature is not None for name in missing)
    # Mapped like that of a later search; where it is not there, or another search's by now, what is in memory.
    stored = index_file.read(file, encoder.fingerprint)
    return stored if stored and stored.holds(files) else StoredIndex.of(entries), encoded, note


def _encode(encoder, folder, files, missing, entries, progress, store) -> None:
    """Adds the missing files to the entries, batch by batch, and stores them now and then; threads read ahead."""
    progress, stored = progress or (lambda done, total: None), time.monotonic()

    def read(name):
        try:
            return read_resized(folder / name, encoder.image_size), ""
        except BadImage as error:
            return None, str(error)

    def read_batch(names):
        return [read(name) for name in names]

    batches = [missing[start : start + BATCH] for start in range(0, len(missing), BATCH)]
    threads = max(1, (os.cpu_count() or 1) - 1)
    with pillow_limit(MAX_DECODED_PIXELS), concurrent.futures.ThreadPoolExecutor(threads) as pool:
        waiting = collections.deque(pool.submit(read_batch, names) for names in batches[:_AHEAD])
        try:
            for number, names in enumerate(batches):
                if number + _AHEAD < len(batches):
                    waiting.append(pool.submit(read_batch, batches[number + _AHEAD]))
                _add(encoder, files, names, waiting.popleft().result(), entries)
                progress(min((number + 1) * BATCH, len(missing)), len(missing))
                if time.monotonic() - stored > _STORE_SECONDS:
                    store()
                    stored = time.monotonic()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _add(encoder, files, names, read, entries) -> None:
    """Adds one batch of read files to the entries."""
    pixels = [image for image, _ in read if image is not None]
    features = iter(encoder.images(np.stack(pixels)) if pixels else ())
    for name, (image, reason) in zip(names, read):
        feature = None if image is None else next(features)
        entries[name] = Entry(files[name], feature, reason)
