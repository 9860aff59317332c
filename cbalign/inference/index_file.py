"""The file that keeps the features of a folder's images from one search to the next.

It is in the safetensors format, with the encoder's fingerprint in its metadata:

    features    float32 [m, d]   of the images that can be read, in the order of their names
    sizes       int64 [n]        of all image files, in bytes
    mtimes      int64 [n]        when they were changed, in ns
    without     int64 [n - m]    rows of the files that cannot be read
    names       uint8            paths within the folder, sorted, with a zero byte between two
    reasons     uint8            why the files of `without` cannot be read, likewise
    crc32       uint32 [1]       of all bytes before it

A local file is mapped into memory, not copied. It is only ever replaced as a whole, so that what is mapped remains.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import math
import mmap
import os
import pathlib
import time
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from etils import epath

from cbalign.storage import parse_json, user_cache, write_atomically

_FORMAT = "cbalign image index 1"
# In the order of the file; the features first, so that they are aligned.
_DTYPES = {
    "features": ("F32", np.dtype("<f4")),
    "sizes": ("I64", np.dtype("<i8")),
    "mtimes": ("I64", np.dtype("<i8")),
    "without": ("I64", np.dtype("<i8")),
    "names": ("U8", np.dtype("u1")),
    "reasons": ("U8", np.dtype("u1")),
    "crc32": ("U32", np.dtype("<u4")),
}
# Bytes of a cache line and of the widest registers.
_ALIGNMENT = 64
# Rows of features that are written at once: a second copy of all would double the memory.
_ROWS = 8192
# Seconds after which a half-written file is one of a search that was killed.
_ABANDONED_SECONDS = 3600

State = tuple[int, int]
"""Size of a file in bytes and its time of change in ns."""


@dataclasses.dataclass
class Entry:
    """What is known of a file: its state when it was read, and its feature or why it has none."""

    state: State
    feature: np.ndarray | None
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class StoredIndex:
    """What is known of n files.

    Attributes:
      names: their paths within the folder, sorted, as one value: see `_joined`.
      states: int64 [2, n], sizes and times of change.
      without: int64 [n - m], rows of the files without a feature.
      reasons: n - m, why they have none.
      features: float32 [m, d] of the others; read-only where they are mapped.
    """

    names: bytes
    states: np.ndarray
    without: np.ndarray
    reasons: list[str]
    features: np.ndarray

    @classmethod
    def of(cls, entries: dict[str, Entry]) -> StoredIndex:
        """Of entries by name."""
        names, states, without, reasons, features = _columns(entries)
        stacked = np.stack(features) if features else np.zeros((0, 0), np.float32)
        return cls(names, states, without, reasons, stacked)

    def holds(self, files: dict[str, State]) -> bool:
        """Whether it is of exactly these files, sorted by name, in these states."""
        states = _states(files.values())
        # In bulk, since there may be a million of them.
        return np.array_equal(self.states, states) and self.names == _joined(files)

    def entries(self) -> dict[str, Entry]:
        """The same by name."""
        names, states = _parted(self.names, self.states.shape[1]), zip(*self.states.tolist())
        reasons, features = dict(zip(self.without.tolist(), self.reasons)), iter(self.features)
        return {
            name: Entry(state, None if row in reasons else next(features), reasons.get(row, ""))
            for row, (name, state) in enumerate(zip(names, states))
        }


def locate(cache: os.PathLike | str | None, fingerprint: str, folder: pathlib.Path) -> epath.Path | None:
    """Where the features of a folder are stored; None where the user has no place for them.

    Args:
      cache: folder of stored features; None for one by the fingerprint among the user's cache files.
      fingerprint: of the encoder.
      folder: of images.
    """
    if cache is None:
        try:
            cache = user_cache() / "search" / fingerprint
        except RuntimeError:
            return None
    resolved = folder.resolve()
    name = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in resolved.name)
    digest = hashlib.blake2b(os.fsencode(resolved), digest_size=6).hexdigest()
    return epath.Path(cache) / f"{name or 'root'}-{digest}.safetensors"


def read(file: epath.Path | None, fingerprint: str) -> StoredIndex | None:
    """What is stored; None where the file is missing, damaged, or of another encoder or format."""
    try:
        return _parsed(_content(file), fingerprint) if file else None
    except Exception:  # noqa: BLE001 - header and array errors are of many kinds, and it can be made again
        return None


def write(file: epath.Path | None, fingerprint: str, entries: dict[str, Entry]) -> str:
    """Writes entries in one piece; returns what went wrong, or ""."""
    if file is None:
        return "there is no home folder to store the images' features in; the next search reads all images again"
    try:
        write_atomically(file, lambda stream: _write(stream, fingerprint, entries))
    except OSError as error:
        return f"the images' features cannot be stored in {file.parent} ({error}); the next search reads them again"
    return ""


def remove_abandoned(file: epath.Path | None) -> None:
    """Removes what searches that were killed while they stored an index, or an older version, have left beside it."""
    if file is None or "://" in os.fspath(file):
        return
    with contextlib.suppress(OSError):
        for path in pathlib.Path(file.parent).glob(f".{file.name}.*.partial"):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                path.unlink()
        file.with_suffix(".npz").unlink(missing_ok=True)


def _content(file: epath.Path) -> bytes | mmap.mmap:
    """The bytes of a file, mapped where it is a local one."""
    if "://" in os.fspath(file):
        return file.read_bytes()
    with open(file, "rb") as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


def _parsed(content: bytes | mmap.mmap, fingerprint: str) -> StoredIndex | None:
    given = parse_json(content[8 : 8 + int.from_bytes(content[:8], "little")])
    shapes = {name: given[name]["shape"] for name in _DTYPES}
    # The shapes determine the header and the size of the file, so that nothing else in it needs to be trusted.
    header, size = _header(fingerprint, shapes)
    if content[: len(header)] != header or len(content) != size:
        return None
    # Also brings the features into memory, where the search needs them.
    if zlib.crc32(memoryview(content)[:-4]) != int.from_bytes(content[-4:], "little"):
        return None
    arrays, start = {}, len(header)
    for name, (_, dtype) in _DTYPES.items():
        count = math.prod(shapes[name])
        arrays[name] = np.frombuffer(content, dtype, count, start).reshape(shapes[name])
        start += count * dtype.itemsize
    states, without = np.stack([arrays["sizes"], arrays["mtimes"]]), arrays["without"]
    reasons = _parted(arrays["reasons"].tobytes(), len(without))
    if len(arrays["features"]) + len(without) != states.shape[1]:
        return None
    return StoredIndex(arrays["names"].tobytes(), states, without, reasons, arrays["features"])


def _header(fingerprint: str, shapes: dict[str, list[int]]) -> tuple[bytes, int]:
    """(what a file with tensors of these shapes starts with, its whole size)."""
    header: dict[str, Any] = {"__metadata__": {"format": _FORMAT, "fingerprint": fingerprint}}
    start = 0
    for name, (code, dtype) in _DTYPES.items():
        end = start + math.prod(shapes[name]) * dtype.itemsize
        header[name] = {"dtype": code, "shape": shapes[name], "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text, 8 + len(text) + start


def _write(stream, fingerprint: str, entries: dict[str, Entry]) -> None:
    names, states, without, reasons, features = _columns(entries)
    tensors = {
        "sizes": states[0],
        "mtimes": states[1],
        "without": without,
        "names": np.frombuffer(names, "u1"),
        "reasons": np.frombuffer(_joined(reasons), "u1"),
    }
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    shapes |= {"features": [len(features), features[0].size if features else 0], "crc32": [1]}
    blocks = (np.stack(features[start : start + _ROWS]) for start in range(0, len(features), _ROWS))
    arrays = itertools.chain((("features", block) for block in blocks), tensors.items())
    header, _ = _header(fingerprint, shapes)
    stream.write(header)
    crc = zlib.crc32(header)
    for name, array in arrays:
        piece = array.astype(_DTYPES[name][1], copy=False).tobytes()
        crc = zlib.crc32(piece, crc)
        stream.write(piece)
    stream.write(crc.to_bytes(4, "little"))


def _columns(entries: dict[str, Entry]) -> tuple[bytes, np.ndarray, np.ndarray, list[str], list[np.ndarray]]:
    """Entries as the attributes of a `StoredIndex`; of the features, a list of m arrays [d]."""
    names = sorted(entries)
    rows = [entries[name] for name in names]
    return (
        _joined(names),
        _states(entry.state for entry in rows),
        np.array([row for row, entry in enumerate(rows) if entry.feature is None], np.int64),
        [entry.reason for entry in rows if entry.feature is None],
        [entry.feature for entry in rows if entry.feature is not None],
    )


def _states(states: Iterable[State]) -> np.ndarray:
    """States of n files as int64 [2, n]."""
    return np.fromiter(itertools.chain.from_iterable(states), np.int64).reshape(-1, 2).T


def _joined(texts: Iterable[str]) -> bytes:
    """Texts as one value; names of files need not be valid text, and hold no zero byte."""
    return "\0".join(texts).encode("utf-8", "surrogateescape")


def _parted(joined: bytes, count: int) -> list[str]:
    """The `count` texts of `_joined`.

    Raises:
      ValueError: there are more or fewer.
    """
    texts = joined.decode("utf-8", "surrogateescape").split("\0") if count or joined else []
    if len(texts) != count:
        raise ValueError(f"{len(texts)} texts instead of {count}")
    return texts
