"""The position of each record in the TFRecord files of a split, and its small features: numbers and texts.

One file per split, `NAME-SPLIT.index.npz`, is stored beside the shards. It is written when a data set is built or first
read, and rewritten where the shards or its format have changed. With it any record is one read away, and numbers and
texts are available without reading the images.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import os
import zipfile

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from etils import epath

from cbalign.data.progress import Progress
from cbalign.data.string_columns import StringLists, Strings
from cbalign.errors import UserError
from cbalign.storage import write_atomically

Column = np.ndarray | Strings | StringLists

# A TFRecord file frames each record by 16 bytes: its length, and checksums of the length and of the data.
_FRAME_BYTES = 16
_BATCH = 1024
_THREADS = 8
# To be raised when the meaning of the arrays changes. 1 held captions and ids alone.
_FORMAT = 2
# How the features of a data set are read from its records; what a record lacks counts as -1, "" or [].
_PARSED = {
    "int": tf.io.FixedLenFeature([], tf.int64, default_value=-1),
    "string": tf.io.FixedLenFeature([], tf.string, default_value=""),
    "strings": tf.io.RaggedFeature(tf.string),
}


@dataclasses.dataclass(eq=False)
class SplitIndex:
    """The n records of a split, in the order of its shards, without their images.

    Attributes:
      files: paths of the shards.
      shard: int32 [n], the number of the shard of each record; records of one shard are consecutive.
      offsets: int64 [n], the byte of the shard where the record's frame starts.
      columns: {feature: its values, int64 [n], `Strings` or `StringLists`}, all features that are no images.
      fingerprint: digest of all the above but the folder.
    """

    files: list[str]
    shard: np.ndarray
    offsets: np.ndarray
    columns: dict[str, Column]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.offsets)

    def part(self, start: int, end: int) -> SplitIndex:
        """Records `start` to `end`, without a copy of the texts."""
        if (start, end) == (0, len(self)):
            return self
        columns = {
            name: column[start:end] if isinstance(column, np.ndarray) else column.part(start, end)
            for name, column in self.columns.items()
        }
        return SplitIndex(
            self.files, self.shard[start:end], self.offsets[start:end], columns, f"{self.fingerprint}[{start}:{end}]"
        )


def join(parts: list[SplitIndex]) -> SplitIndex:
    """The records of several indices, one after another, with the features that all of them have."""
    if len(parts) == 1:
        return parts[0]
    first_file = np.cumsum([0] + [len(part.files) for part in parts[:-1]])
    shared = [name for name in parts[0].columns if all(name in part.columns for part in parts)]
    return SplitIndex(
        files=[file for part in parts for file in part.files],
        shard=np.concatenate([part.shard + np.int32(first) for part, first in zip(parts, first_file)]),
        offsets=np.concatenate([part.offsets for part in parts]),
        columns={name: _joined([part.columns[name] for part in parts]) for name in shared},
        fingerprint="+".join(part.fingerprint for part in parts),
    )


def _joined(columns: list[Column]) -> Column:
    return np.concatenate(columns) if isinstance(columns[0], np.ndarray) else type(columns[0]).join(columns)


def write_indices(builder: tfds.core.DatasetBuilder) -> list[epath.Path]:
    """Reads the shards of a built data set once and writes the index of each split beside them.

    Args:
      builder: of a data set in TFRecord files.

    Returns:
      The files written.

    Raises:
      UserError: a shard is missing or damaged, or nothing can be written there.
    """
    written = []
    for split in builder.info.splits:
        path = _path(builder, split)
        try:
            _save(path, _scan_split(builder, split))
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
    if not parts:
        raise UserError(f"split {split} of {builder.name} holds no records: name a larger part")
    return join([whole[base].part(start, end) for base, start, end in parts])


def split_fingerprint(builder: tfds.core.DatasetBuilder, split: str) -> dict:
    """What identifies a split: {"records": n, "bytes": size of its shards, "index": `SplitIndex.fingerprint`}.

    Raises:
      UserError: a shard is missing or damaged.
    """
    sizes = _sizes(_shard_paths(builder, split))
    stored = _read(_path(builder, split), ("format", "shard_bytes", "fingerprint"))
    if stored is None or stored["format"] != _FORMAT or not np.array_equal(stored["shard_bytes"], sizes):
        digest = _load(builder, split).fingerprint
    else:
        digest = str(stored["fingerprint"])
    return {"records": builder.info.splits[split].num_examples, "bytes": int(sizes.sum()), "index": digest}


def _path(builder, split: str) -> epath.Path:
    return epath.Path(builder.data_path) / f"{builder.name}-{split}.index.npz"


def _shard_paths(builder, split: str) -> list[str]:
    if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
        raise UserError(f"{builder.name} is stored as {builder.info.file_format.value}: build it again as tfrecord")
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


def _assembled(files: list[str], arrays: dict) -> SplitIndex:
    """The index from its stored arrays: "column/NAME" of ints, "column/NAME/data", "/offsets" and "/lists" of texts."""
    columns, stored = {}, [name.split("/") for name in arrays if name.startswith("column/")]
    for name in dict.fromkeys(parts[1] for parts in stored):
        prefix = f"column/{name}"
        if prefix in arrays:
            columns[name] = arrays[prefix]
            continue
        columns[name] = Strings(arrays[f"{prefix}/data"], arrays[f"{prefix}/offsets"])
        if f"{prefix}/lists" in arrays:
            columns[name] = StringLists(columns[name], arrays[f"{prefix}/lists"])
    shard = np.repeat(np.arange(len(files), dtype=np.int32), arrays["shard_lengths"])
    return SplitIndex(files, shard, arrays["offsets"], columns, str(arrays["fingerprint"]))


def _sizes(files: list[str]) -> np.ndarray:
    def size(file):
        try:
            return tf.io.gfile.stat(file).length
        except tf.errors.NotFoundError:
            raise UserError(f"{file} is missing: copy it there again, or build the data set again") from None

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        return np.array(list(pool.map(size, files)), np.int64)


def _read(path, names: tuple[str, ...] = ()) -> dict | None:
    """The arrays of a stored index, all or some; None where it cannot be read."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            found = arrays if not names else {name: arrays[name] for name in names}
            return {"format": 0, "shard_bytes": None, **found}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile):
        return None  # truncated, or not ours: it is made again


def _save(path, arrays: dict) -> None:
    write_atomically(path, lambda file: np.savez(file, **arrays))


def _small_features(builder) -> dict[str, str]:
    """{feature: its type, a key of `_PARSED`} of a data set, in the order of their names."""
    found = {}
    for name, feature in sorted(builder.info.features.items()):
        if isinstance(feature, tfds.features.Text):
            found[name] = "string"
        elif isinstance(feature, tfds.features.Sequence) and isinstance(feature.feature, tfds.features.Text):
            found[name] = "strings"
        elif isinstance(feature, tfds.features.Tensor) and not feature.shape and _is_integer(feature):
            found[name] = "int"
    return found


def _is_integer(feature) -> bool:
    return np.issubdtype(feature.np_dtype, np.integer)


def _scan_split(builder, split: str) -> dict:
    files, lengths = _shard_paths(builder, split), builder.info.splits[split].shard_lengths
    with Progress(f"indexing {builder.name} {split}", sum(lengths)) as progress:
        arrays = _scan(files, _small_features(builder), progress)
    for file, expected, found in zip(files, lengths, arrays["shard_lengths"]):
        if found != expected:
            raise UserError(f"{file} holds {found} records instead of {expected}: copy or build it again")
    return arrays


def _scan(files: list[str], features: dict[str, str], progress: Progress) -> dict:
    """Reads files through, several at a time, and returns the arrays to be stored."""
    sizes = _sizes(files)
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        shards = list(pool.map(lambda file: _scan_shard(file, features, progress), files))
    arrays = {}
    for name in shards[0]:
        values = np.concatenate([shard[name] for shard in shards])
        # Shards tell the lengths of strings and lists; their sums are offsets over all shards.
        ends = name.endswith(("/offsets", "/lists"))
        arrays[name] = np.cumsum(np.concatenate([[0], values]), dtype=np.int64) if ends else values
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays.values():
        digest.update(array.tobytes())
    return {
        **arrays,
        "shard_lengths": np.array([len(shard["offsets"]) for shard in shards]),
        "shard_bytes": sizes,
        "format": _FORMAT,
        "fingerprint": digest.hexdigest(),
    }


def _scan_shard(file: str, features: dict[str, str], progress: Progress) -> dict:
    """Offsets of the records of one shard and the columns of their features, with lengths for offsets."""
    parsed = {name: _PARSED[kind] for name, kind in features.items()}
    sizes, columns = [], {name: _Scanned(kind) for name, kind in features.items()}
    with tf.device("CPU:0"):
        dataset = tf.data.TFRecordDataset(file, buffer_size=8 << 20).batch(_BATCH)
        dataset = dataset.map(lambda data: (tf.strings.length(data), tf.io.parse_example(data, parsed)))
        try:
            for size, batch in dataset.prefetch(1):
                sizes.append(size.numpy())
                for name, column in columns.items():
                    column.add(batch[name])
                progress.update(len(size))
        except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
            done = sum(map(len, sizes))
            raise UserError(
                f"{file} is damaged after record {done} ({type(error).__name__}): copy or build it again"
            ) from error
    frames = _concatenated(sizes) + _FRAME_BYTES
    arrays = {"offsets": np.cumsum(frames) - frames}
    for name, column in columns.items():
        arrays |= {f"column/{name}{suffix}": array for suffix, array in column.arrays().items()}
    return arrays


class _Scanned:
    """What was read of one feature."""

    def __init__(self, kind: str):
        self._kind, self._values, self._lengths, self._counts = kind, [], [], []

    def add(self, batch) -> None:
        """Takes the feature of some records."""
        if self._kind == "int":
            self._values.append(batch.numpy())
            return
        if self._kind == "strings":
            self._counts.append(batch.row_lengths().numpy())
            batch = batch.values
        strings = batch.numpy().tolist()
        self._lengths.append([len(string) for string in strings])
        self._values.append(b"".join(strings))

    def arrays(self) -> dict[str, np.ndarray]:
        """{suffix of the name of the stored array: array}."""
        if self._kind == "int":
            return {"": _concatenated(self._values)}
        text = np.frombuffer(b"".join(self._values), np.uint8)
        found = {"/data": text, "/offsets": _concatenated(self._lengths)}
        if self._kind == "strings":
            found["/lists"] = _concatenated(self._counts)
        return found


def _concatenated(arrays: list) -> np.ndarray:
    return np.concatenate([np.array([], np.int64), *(np.asarray(array, np.int64) for array in arrays)])
