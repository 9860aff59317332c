"""Where each record lies in the TFRecord files of a split, with what else is small: ids and captions.

One file a split, `NAME-SPLIT.index.npz`, stands beside the shards. It is written when a data set is built, or the first
time it is read. With it any record is one read away, and neither captions nor ids ever need the images to be read.
"""

import concurrent.futures
import dataclasses
import hashlib
import os
import zipfile
from collections.abc import Iterable

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from etils import epath

from cbalign.data.progress import Progress
from cbalign.errors import UserError

# Bytes a TFRecord file holds beside each record: its length, and checksums of the length and of the data.
_FRAME_BYTES = 16
_BATCH = 1024
_THREADS = 8
# To be raised when the meaning of the arrays changes.
_FORMAT = 1
_FEATURES = {
    "captions": tf.io.RaggedFeature(tf.string),
    "id": tf.io.FixedLenFeature([], tf.int64, default_value=-1),
}


@dataclasses.dataclass(eq=False)
class SplitIndex:
    """The records of a split, in the order of its shards, without their images.

    Attributes:
      files: paths of the s shards.
      shard: int32 [n], the number of the shard of each record.
      offsets: int64 [n], the byte of the shard where the record's frame starts.
      ids: int64 [n]; -1 where a record has none.
      caption_offsets: int64 [n + 1]; the captions of record i are numbers caption_offsets[i] to caption_offsets[i + 1].
      text: uint8 [b], the raw captions in UTF-8, end to end.
      text_offsets: int64 [c + 1], where in `text` each caption starts.
      fingerprint: digest of all the above but the folder.
    """

    files: list[str]
    shard: np.ndarray
    offsets: np.ndarray
    ids: np.ndarray
    caption_offsets: np.ndarray
    text: np.ndarray
    text_offsets: np.ndarray
    fingerprint: str

    def __len__(self) -> int:
        return len(self.offsets)

    def caption(self, number: int) -> str:
        """Caption `number` of all, as it is stored."""
        start, end = self.text_offsets[number], self.text_offsets[number + 1]
        return self.text[start:end].tobytes().decode("utf-8", errors="replace")

    def part(self, start: int, end: int) -> "SplitIndex":
        """Records `start` to `end`, without a copy of what is large."""
        if (start, end) == (0, len(self)):
            return self
        first, last = self.caption_offsets[start], self.caption_offsets[end]
        return SplitIndex(
            self.files, self.shard[start:end], self.offsets[start:end], self.ids[start:end],
            self.caption_offsets[start : end + 1] - first, self.text, self.text_offsets[first : last + 1],
            f"{self.fingerprint}[{start}:{end}]",
        )


def join(parts: list[SplitIndex]) -> SplitIndex:
    """The records of several indices, one after another."""
    if len(parts) == 1:
        return parts[0]
    files = np.cumsum([0] + [len(part.files) for part in parts[:-1]])
    texts = [part.text[part.text_offsets[0] : part.text_offsets[-1]] for part in parts]
    return SplitIndex(
        files=[file for part in parts for file in part.files],
        shard=np.concatenate([part.shard + np.int32(first) for part, first in zip(parts, files)]),
        offsets=np.concatenate([part.offsets for part in parts]), ids=np.concatenate([part.ids for part in parts]),
        caption_offsets=_chained([part.caption_offsets for part in parts]), text=np.concatenate(texts),
        text_offsets=_chained([part.text_offsets - part.text_offsets[0] for part in parts]),
        fingerprint="+".join(part.fingerprint for part in parts),
    )


def _chained(offsets: list[np.ndarray]) -> np.ndarray:
    """Offsets into pieces as offsets into the pieces end to end."""
    return np.cumsum(np.concatenate([[0], *(np.diff(part) for part in offsets)]), dtype=np.int64)


def write_offsets(builder: tfds.core.DatasetBuilder, splits: Iterable[str] | None = None) -> list[epath.Path]:
    """Reads the shards of a built data set once and writes the index of each split beside them.

    Args:
      builder: of a data set in TFRecord files.
      splits: which of its splits; all by default.

    Returns:
      The files written.

    Raises:
      UserError: a shard is missing or damaged, or nothing can be written there.
    """
    written = []
    for split in splits or list(builder.info.splits):
        arrays = _scan_split(builder, split)
        path = _path(builder, split)
        try:
            _save(path, arrays)
        except OSError as error:
            raise UserError(f"cannot write {path} ({error.strerror or error}): make its folder writable") from error
        written.append(path)
    return written


def load_index(builder: tfds.core.DatasetBuilder, split: str) -> SplitIndex:
    """The index of a split, or of a slice or sum of splits in TFDS's notation; made now where there is none.

    Raises:
      UserError: a shard is missing or damaged.
    """
    whole, parts = {}, []
    for instruction in builder.info.splits[split].file_instructions:
        name = epath.Path(instruction.filename).name
        base = next(base for base, info in builder.info.splits.items() if name in info.filenames)
        if base not in whole:
            whole[base] = _load(builder, base)
        lengths = np.cumsum([0, *builder.info.splits[base].shard_lengths])
        number = sorted(builder.info.splits[base].filenames).index(name)
        start = int(lengths[number]) + instruction.skip
        end = int(lengths[number + 1]) if instruction.take < 0 else start + instruction.take
        if parts and parts[-1][0] == base and parts[-1][2] == start:
            parts[-1] = (base, parts[-1][1], end)
        else:
            parts.append((base, start, end))
    return join([whole[base].part(start, end) for base, start, end in parts])


def _path(builder, split: str) -> epath.Path:
    return epath.Path(builder.data_path) / f"{builder.name}-{split}.index.npz"


def _shard_paths(builder, split: str) -> list[str]:
    if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
        raise UserError(f"{builder.name} is stored as {builder.info.file_format.value}: build it anew as tfrecord")
    return [os.fspath(epath.Path(builder.data_path) / name) for name in sorted(builder.info.splits[split].filenames)]


def _load(builder, split: str) -> SplitIndex:
    """The stored index where it fits the shards, else a new one, which is stored where the folder can be written."""
    path, files = _path(builder, split), _shard_paths(builder, split)
    sizes = _sizes(files)
    arrays = _read(path)
    if arrays is None or arrays["format"] != _FORMAT or not np.array_equal(arrays["shard_bytes"], sizes):
        arrays = _scan_split(builder, split)
        try:
            _save(path, arrays)
        except OSError as error:
            print(f"{path} cannot be written ({error.strerror or error}): {split} is read through at every start")
    return _assembled(files, arrays)


def index_files(files: list[str]) -> SplitIndex:
    """Reads TFRecord files through and indexes them; nothing is stored.

    Raises:
      UserError: one is missing or damaged.
    """
    with Progress("indexing", 0) as progress:
        return _assembled(files, _scan(files, progress))


def _assembled(files: list[str], arrays: dict) -> SplitIndex:
    columns = {field: arrays[field] for field in ("offsets", "ids", "caption_offsets", "text", "text_offsets")}
    shard = np.repeat(np.arange(len(files), dtype=np.int32), arrays["shard_lengths"])
    return SplitIndex(files=files, shard=shard, fingerprint=str(arrays["fingerprint"]), **columns)


def _sizes(files: list[str]) -> np.ndarray:
    def size(file):
        try:
            return tf.io.gfile.stat(file).length
        except tf.errors.NotFoundError:
            raise UserError(f"{file} is missing: copy it there again, or build the data set anew") from None

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        return np.array(list(pool.map(size, files)), np.int64)


def _read(path) -> dict | None:
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return dict(arrays)
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile):
        return None  # cut off, or not ours: it is made again


def _save(path, arrays: dict) -> None:
    # Several processes may come here at once, each with the same content; the last one's name stays.
    temporary = path.parent / f"{path.name}.{os.getpid()}.partial"
    with temporary.open("wb") as file:
        np.savez(file, **arrays)
    temporary.replace(path)


def _scan_split(builder, split: str) -> dict:
    files, lengths = _shard_paths(builder, split), builder.info.splits[split].shard_lengths
    with Progress(f"indexing {builder.name} {split}", sum(lengths)) as progress:
        arrays = _scan(files, progress)
    for file, expected, found in zip(files, lengths, arrays["shard_lengths"]):
        if found != expected:
            raise UserError(f"{file} holds {found} records instead of {expected}: copy or build it again")
    return arrays


def _scan(files: list[str], progress: Progress) -> dict:
    """Reads files through, several at a time, and returns the arrays to be stored."""
    sizes = _sizes(files)
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        shards = list(pool.map(lambda file: _scan_shard(file, progress), files))
    counts, lengths = (np.concatenate([[0], *(shard[name] for shard in shards)]) for name in ("counts", "lengths"))
    arrays = {
        **{name: np.concatenate([shard[name] for shard in shards]) for name in ("offsets", "ids", "text")},
        "caption_offsets": np.cumsum(counts, dtype=np.int64), "text_offsets": np.cumsum(lengths, dtype=np.int64),
    }
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays.values():
        digest.update(array.tobytes())
    return {**arrays, "shard_lengths": np.array([len(shard["ids"]) for shard in shards]), "shard_bytes": sizes,
            "format": _FORMAT, "fingerprint": digest.hexdigest()}


def _scan_shard(file: str, progress: Progress) -> dict:
    """Offsets, ids, caption counts, caption lengths and texts of one shard."""
    sizes, ids, counts, lengths, texts = [], [], [], [], []
    with tf.device("CPU:0"):
        dataset = tf.data.TFRecordDataset(file, buffer_size=8 << 20).batch(_BATCH)
        dataset = dataset.map(lambda data: (tf.strings.length(data), tf.io.parse_example(data, _FEATURES)))
        try:
            for size, columns in dataset.prefetch(1):
                captions = columns["captions"].values.numpy()
                sizes.append(size.numpy())
                ids.append(columns["id"].numpy())
                counts.append(columns["captions"].row_lengths().numpy())
                lengths.append([len(caption) for caption in captions])
                texts += captions.tolist()
                progress.update(len(size))
        except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
            done = sum(map(len, ids))
            raise UserError(f"{file} is damaged after record {done} ({type(error).__name__}): copy or build it "
                            "again") from error
    frames = np.concatenate([*sizes, []]).astype(np.int64) + _FRAME_BYTES
    return {
        "offsets": np.cumsum(frames) - frames, "ids": np.concatenate([*ids, []]).astype(np.int64),
        "counts": np.concatenate([*counts, []]).astype(np.int64),
        "lengths": np.concatenate([*lengths, []]).astype(np.int64),
        "text": np.frombuffer(b"".join(texts), np.uint8),
    }
