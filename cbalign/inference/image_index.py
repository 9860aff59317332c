"""The features of a folder's images, kept from one search to the next, and the ranking by them."""

import concurrent.futures
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from etils import epath

from cbalign.runs.workdir import Run
from cbalign.data.image_files import pillow_limit
from cbalign.errors import UserError
from cbalign.inference.encoder import BATCH, Encoder
from cbalign.inference.image_files import MAX_PIXELS, UnreadableImage, image_files, read_image


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
      paths: n paths, the folder's name as it was given in front.
      features: float32 [n, d], rows of unit length.
      skipped: files that look like images and cannot be read.
      encoded: how many of the n features had to be computed; the others were kept from before.
      note: what went wrong with keeping them, or "".
    """

    paths: list[str]
    features: np.ndarray
    skipped: list[Skipped]
    encoded: int = 0
    note: str = ""


def search(index: Index, query: np.ndarray, top: int) -> list[Hit]:
    """The best images of an index, best first.

    Args:
      index: from `index_folder`.
      query: float32 [d] of unit length, from `Encoder.text` or `Encoder.image`.
      top: how many; fewer where the index has no more.
    """
    scores = index.features @ query
    best = np.argsort(-scores, kind="stable")[:top]
    return [Hit(float(scores[i]), index.paths[i]) for i in best]


@dataclasses.dataclass
class _Entry:
    """What is kept of a file: its state when it was read, and its feature or why it has none."""

    size: int
    mtime_ns: int
    feature: np.ndarray | None
    reason: str = ""


def index_folder(
    run: Run, folder, *, encoder: Encoder | None = None, progress: Callable[[int, int], None] | None = None
) -> Index:
    """Encodes the images of a folder and its sub-folders; what is unchanged since the last time is kept.

    The features are kept in `search/NAME-HASH.npz` in the workdir, per file by (relative path, size, time of change)
    and all together by the weights of the encoder.

    Args:
      run: from `open_run`.
      folder: of images, in any format Pillow reads; hidden files and folders are passed over.
      encoder: of the run; the best checkpoint's by default.
      progress: called as progress(done, total) while files are read.

    Raises:
      UserError: no such folder, or no image in it that can be read.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; name a folder of images")
    files = dict(image_files(folder))
    if not files:
        raise UserError(f"no images in {folder} or below it; name a folder of JPEG, PNG or other image files")
    encoder = encoder or Encoder.of(run)
    cache = _cache_file(run.workdir, folder)
    known = _load(cache, encoder.fingerprint)
    entries = {name: known[name] for name, state in files.items()
               if name in known and (known[name].size, known[name].mtime_ns) == state}
    missing = [name for name in files if name not in entries]
    note = ""
    if missing or len(entries) != len(known):
        try:
            _encode(encoder, folder, files, missing, entries, progress)
        finally:
            # Also where it was interrupted: what is done is not to be done again.
            note = _store(cache, encoder.fingerprint, entries)
    return _as_index(folder, files, entries, missing, note)


def _as_index(folder, files, entries, missing, note) -> Index:
    readable = [name for name in files if entries[name].feature is not None]
    skipped = [Skipped(str(folder / name), entries[name].reason) for name in files if entries[name].feature is None]
    if not readable:
        raise UserError(f"none of the {len(skipped)} images in {folder} can be read "
                        f"({skipped[0].path}: {skipped[0].reason}); name another folder")
    features = np.stack([entries[name].feature for name in readable])
    encoded = sum(entries[name].feature is not None for name in missing)
    return Index([str(folder / name) for name in readable], features, skipped, encoded, note)


def _encode(encoder, folder, files, missing, entries, progress) -> None:
    """Adds the missing files to the entries, batch by batch; threads read ahead of the encoder."""
    progress = progress or (lambda done, total: None)

    def read(name):
        try:
            return read_image(folder / name, encoder.image_size), ""
        except UnreadableImage as error:
            return None, str(error)

    with pillow_limit(MAX_PIXELS), concurrent.futures.ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1)) as pool:
        batches = [missing[start:start + BATCH] for start in range(0, len(missing), BATCH)]
        waiting = [pool.submit(lambda names: [read(n) for n in names], names) for names in batches[:4]]
        try:
            for number, names in enumerate(batches):
                if number + 4 < len(batches):
                    waiting.append(pool.submit(lambda names: [read(n) for n in names], batches[number + 4]))
                _add(encoder, files, names, waiting.pop(0).result(), entries)
                progress(min((number + 1) * BATCH, len(missing)), len(missing))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _add(encoder, files, names, read, entries) -> None:
    """Adds one batch of read files to the entries."""
    pixels = [image for image, _ in read if image is not None]
    features = iter(encoder.images(np.stack(pixels)) if pixels else ())
    for name, (image, reason) in zip(names, read):
        feature = None if image is None else next(features)
        entries[name] = _Entry(*files[name], feature, reason)


def _cache_file(workdir, folder: pathlib.Path) -> epath.Path:
    resolved = folder.resolve()
    name = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in resolved.name)
    digest = hashlib.blake2b(os.fsencode(resolved), digest_size=6).hexdigest()
    return epath.Path(workdir) / "search" / f"{name or 'root'}-{digest}.npz"


def _load(cache, fingerprint: str) -> dict:
    """{relative path: _Entry} as stored; nothing where there is no file, a damaged one, or one of other weights."""
    try:
        with cache.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if str(stored["fingerprint"]) != fingerprint:
                return {}
            features = iter(stored["features"])
            columns = (stored[name].tolist() for name in ("paths", "sizes", "mtimes", "reasons"))
            return {path: _Entry(size, mtime, None if reason else next(features), reason)
                    for path, size, mtime, reason in zip(*columns)}
    except Exception:
        # It can be made anew whatever is wrong with it: zip, header and array errors are of many kinds.
        return {}


def _store(cache, fingerprint: str, entries: dict) -> str:
    """Writes the entries under a temporary name and renames; returns what went wrong, or ""."""
    features = [entry.feature for entry in entries.values() if entry.feature is not None]
    temporary = cache.parent / f".{cache.name}.{os.getpid()}"
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez(
                file, fingerprint=np.array(fingerprint), paths=np.array(list(entries), dtype=str),
                sizes=np.array([entry.size for entry in entries.values()], np.int64),
                mtimes=np.array([entry.mtime_ns for entry in entries.values()], np.int64),
                reasons=np.array([entry.reason for entry in entries.values()], dtype=str),
                features=np.stack(features) if features else np.zeros((0, 0), np.float32),
            )
        temporary.replace(cache)
    except OSError as error:
        return f"the images' features cannot be kept in {cache.parent} ({error}); the next search reads them again"
    return ""
