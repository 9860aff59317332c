"""Columns of records on disk: images read when asked for, captions encoded once and kept, ids made distinct."""

import collections.abc
import functools
import hashlib
import json
import os

import numpy as np
import tensorflow as tf
from etils import epath

from cbalign.data import text
from cbalign.data.split_index import SplitIndex
from cbalign.data.progress import Progress

MAX_WORDS = 30
"""Words a caption is cut to before it is encoded."""

# Captions encoded at a time.
_CHUNK = 1 << 16
# Over a network every read is a request: there a quarter of a megabyte is asked for at once.
_REMOTE_BUFFER = 256 << 10


class StoredFeature(collections.abc.Sequence):
    """One feature of records on disk, a bytes string each, read when asked for."""

    def __init__(self, index: SplitIndex, feature: str):
        self._index, self._feature = index, feature

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, number: int) -> bytes:
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        return self.read(tf.constant(number % len(self), tf.int64)).numpy()

    @functools.cached_property
    def _tables(self):
        # May first be asked for while a graph is traced, which would own them otherwise.
        with tf.init_scope(), tf.device("CPU:0"):
            return tf.constant(self._index.files), tf.constant(self._index.shard), tf.constant(self._index.offsets)

    def read(self, record):
        """The feature of record (int64 scalar), inside a graph; an error where its bytes are damaged."""
        files, shard, byte = self._tables
        remote = "://" in self._index.files[0]
        dataset = tf.raw_ops.TFRecordDatasetV2(
            filenames=tf.gather(files, tf.gather(shard, record))[tf.newaxis], compression_type="",
            buffer_size=_REMOTE_BUFFER if remote else 0, byte_offsets=tf.gather(byte, record)[tf.newaxis],
        )
        dataset = tf.data.experimental.from_variant(dataset, tf.TensorSpec([], tf.string))
        example = dataset.take(1).get_single_element()
        return tf.io.parse_single_example(example, {self._feature: tf.io.FixedLenFeature([], tf.string)})[self._feature]


class StoredNames(StoredFeature):
    """The names of records on disk."""

    def __init__(self, index: SplitIndex):
        super().__init__(index, "name")

    def __getitem__(self, number: int) -> str:
        return super().__getitem__(number).decode("utf-8", errors="replace")


class StoredCaptions(collections.abc.Sequence):
    """The raw captions of the records of an index: a list of strings each."""

    def __init__(self, index: SplitIndex):
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, number: int) -> list[str]:
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        start, end = self._index.caption_offsets[number % len(self) :][:2]
        return [self._index.caption(caption) for caption in range(start, end)]


def distinct_ids(ids: list[np.ndarray]) -> np.ndarray:
    """Ids int32, those of one source as they are if they fit, else numbered anew so that sources share none."""
    if len(ids) == 1 and np.array_equal(ids[0], ids[0].astype(np.int32)):
        return ids[0].astype(np.int32)
    numbered, used = [], 0
    for part in ids:
        values, number = np.unique(part, return_inverse=True)
        numbered.append(number + used)
        used += len(values)
    return np.concatenate(numbered).astype(np.int32)


def encoded_captions(index: SplitIndex, folder: epath.Path, tokenizer, max_length: int) -> np.ndarray:
    """The encoded captions [c, L] of one source: int16, or int32 for a vocabulary that needs it; kept in its folder."""
    key = json.dumps([sorted(tokenizer.get_vocab().items()), max_length, MAX_WORDS, index.fingerprint])
    path = folder / f"tokens-{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}.npy"
    shape = (int(index.caption_offsets[-1]), max_length)
    kept = _load_array(path, shape)
    if kept is not None:
        return kept
    tokens = np.empty(shape, np.int16 if len(tokenizer) <= np.iinfo(np.int16).max else np.int32)
    with Progress("encoding captions", len(tokens), unit="caption") as progress:
        for start in range(0, len(tokens), _CHUNK):
            numbers = range(start, min(start + _CHUNK, len(tokens)))
            cleaned = [text.clean_caption(index.caption(number), max_words=MAX_WORDS) for number in numbers]
            tokens[start : start + len(cleaned)] = text.encode(tokenizer, cleaned, max_length=max_length)
            progress.update(len(cleaned))
    try:
        temporary = path.parent / f"{path.name}.{os.getpid()}.partial"
        with temporary.open("wb") as file:
            np.save(file, tokens)
        temporary.replace(path)
    except OSError as error:
        print(f"{path} cannot be written ({error.strerror or error}): captions are encoded at every start")
    return tokens




def _load_array(path: epath.Path, shape: tuple) -> np.ndarray | None:
    """The array in a .npy file, or None where there is none of that shape."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as file:
            array = np.load(file)
    except (ValueError, OSError, EOFError):
        return None
    return array if array.shape == shape else None
