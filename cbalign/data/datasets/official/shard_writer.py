"""Writes a data set of an `OfficialBuilder` as TFRecord files and resumes an interrupted build.

The records are divided into shards in advance, by size. Each shard is written under a temporary name, renamed, and
marked complete by a small JSON file beside it; only shards without that file are written again. The folder is called
`VERSION.incomplete` until the last shard is complete.
"""

from __future__ import annotations

import concurrent.futures
import functools
import hashlib
import itertools
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from etils import epath

from cbalign.data.datasets.disk_errors import DISK_ERRORS, cannot_write
from cbalign.data.datasets.official.build_report import BUILD_REPORT
from cbalign.data.datasets.official.official_builder import Contents, OfficialBuilder, Row, feature_names, read_record
from cbalign.data.image_files import MAX_PIXELS, BadImage, pillow_limit
from cbalign.data.progress import Progress
from cbalign.errors import UserError
from cbalign.storage import read_json, write_atomically

SHARD_BYTES = 200 << 20
_PLAN = "plan.json"
_SEED = 0


class Shard(NamedTuple):
    """One TFRecord file and its rows."""

    split: str
    file: str
    rows: list[Row]


def write_shards(
    builder: OfficialBuilder, contents: Contents, *, workers: int = 1, shard_bytes: int = SHARD_BYTES
) -> dict:
    """Writes a data set to `builder.data_path`, from which new builders of that name read it.

    Args:
      builder: of a data set that has not been built; it cannot read the records afterwards, a new builder can.
      contents: of the folder with the official files.
      workers: number of shards written concurrently.
      shard_bytes: approximate size of a shard.

    Returns:
      The report, which is also written beside the records: "splits" {split: number of records}, "skipped" {split:
      {reason: names}}, "shards", their number, and "notes", those of the contents.

    Raises:
      UserError: there is not enough space, the folder is not writable, or all records of a split are unusable.
    """
    final = epath.Path(builder.data_path)
    shards = list(_plan(builder, contents, shard_bytes))
    folder = final.parent / f"{final.name}.incomplete"
    try:
        _open_folder(folder, shards)
        unfinished = [shard for shard in shards if not _completion_file(folder, shard).exists()]
        _check_space(folder, unfinished)
        _write_all(type(builder).SCHEMA, folder, shards, unfinished, workers)
        report = _write_metadata(builder, folder, contents, shards)
        folder.rename(final)
        for file in [final / _PLAN, *(_completion_file(final, shard) for shard in shards)]:
            file.unlink()
    except DISK_ERRORS as error:
        raise UserError(cannot_write(folder, error, "--data-dir")) from None
    return report


def _plan(builder: OfficialBuilder, contents: Contents, shard_bytes: int) -> Iterator[Shard]:
    """Divides each split into shards of about `shard_bytes`, in random order where the builder asks for it."""
    for split, listing in contents.splits.items():
        if not listing.rows:
            raise UserError(f"no record of {builder.name}, split {split}, is usable: run cbalign data check")
        rows = listing.rows
        if builder.SHUFFLE:
            rows = [rows[index] for index in np.random.default_rng(_SEED).permutation(len(rows))]
        ends = np.cumsum([_size(row) for row in rows])
        count = min(-(-int(ends[-1]) // shard_bytes), len(rows))
        cuts = np.searchsorted(ends, ends[-1] * np.arange(1, count) / count)
        # Cuts coincide where a single record is larger than a shard.
        cuts = np.unique([0, *cuts, len(rows)]).tolist()
        for number, (start, end) in enumerate(itertools.pairwise(cuts)):
            name = f"{builder.name}-{split}.tfrecord-{number:05d}-of-{len(cuts) - 1:05d}"
            yield Shard(split, name, rows[start:end])


def _size(row: Row) -> int:
    return sum(image.size for image in row.images)


def _open_folder(folder: epath.Path, shards: list[Shard]) -> None:
    """Creates the folder, or keeps that of an interrupted build of the same records."""
    digest = hashlib.blake2b(digest_size=16)
    for shard in shards:
        digest.update(shard.file.encode())
        for row in shard.rows:
            digest.update(repr(([image[1:] for image in row.images], row.values)).encode())
    plan = {"fingerprint": digest.hexdigest(), "shards": len(shards)}
    if folder.exists():
        if read_json(folder / _PLAN) == plan:
            return
        print(f"the official files have changed since the build in {folder} was interrupted: starting over", flush=True)
        folder.rmtree()
    folder.mkdir(parents=True)
    write_atomically(folder / _PLAN, json.dumps(plan))


def _check_space(folder: epath.Path, unfinished: list[Shard]) -> None:
    if "://" in os.fspath(folder):
        return
    needed = sum(_size(row) for shard in unfinished for row in shard.rows)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder} has {free / 1e9:.1f} GB free and the images take {needed / 1e9:.1f} GB: free up space, or name "
            "another --data-dir"
        )


def _completion_file(folder: epath.Path, shard: Shard) -> epath.Path:
    """The file that marks a shard as complete."""
    return folder / f"{shard.file}.json"


def _write_all(
    features: Callable, folder: epath.Path, shards: list[Shard], unfinished: list[Shard], workers: int
) -> None:
    """Writes the unfinished shards; an interruption keeps those that are complete."""
    total = sum(len(shard.rows) for shard in shards)
    remaining = sum(len(shard.rows) for shard in unfinished)
    if len(unfinished) < len(shards):
        print(f"resuming: {len(shards) - len(unfinished)} of {len(shards)} shards are complete", flush=True)
    stop = threading.Event()
    with (
        Progress("writing", total, start=total - remaining) as progress,
        pillow_limit(MAX_PIXELS),
        # Threads suffice: reading, decoding and writing release the interpreter lock.
        concurrent.futures.ThreadPoolExecutor(workers) as pool,
    ):
        write = functools.partial(_write, features, folder, progress=progress, stop=stop)
        try:
            for done in concurrent.futures.as_completed([pool.submit(write, shard) for shard in unfinished]):
                done.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _write(features: Callable, folder: epath.Path, shard: Shard, *, progress: Progress, stop: threading.Event) -> None:
    """Writes one shard and its completion file: counts of records and bytes, and the names of skipped records."""
    names = feature_names(features())
    encode = tfds.features.FeaturesDict(features())
    serializer = tfds.core.example_serializer.ExampleSerializer(encode.get_serialized_info())
    summary = {"records": 0, "bytes": 0, "skipped": {}}
    temporary = folder / f"{shard.file}.partial"
    with tf.io.TFRecordWriter(os.fspath(temporary)) as writer:
        for row in shard.rows:
            if stop.is_set():
                return
            try:
                data = serializer.serialize_example(encode.encode_example(read_record(names, row)))
            except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
                where = f"{shard.split}, record of {row.images[0].path}"
                raise UserError(
                    f"{where}: a value that the official files do not have ({_first_line(error)})"
                ) from error
            except BadImage as error:
                summary["skipped"].setdefault(str(error), []).append(row.images[0].path)
            else:
                writer.write(data)
                summary["records"] += 1
                summary["bytes"] += len(data)
            progress.update()
    temporary.rename(folder / shard.file)
    write_atomically(_completion_file(folder, shard), json.dumps(summary))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]


def _write_metadata(builder: OfficialBuilder, folder: epath.Path, contents: Contents, shards: list[Shard]) -> dict:
    """Writes TFDS's description of the data set, the report and the side files; returns the report."""
    summaries = {split: [] for split in contents.splits}
    for shard in shards:
        summaries[shard.split].append(json.loads(_completion_file(folder, shard).read_text()))
    report = {"splits": {}, "skipped": {}, "shards": len(shards), "notes": contents.notes}
    infos = []
    for split, of_shards in summaries.items():
        skipped = {reason: list(names) for reason, names in contents.splits[split].skipped.items()}
        for summary in of_shards:
            for reason, names in summary["skipped"].items():
                skipped.setdefault(reason, []).extend(names)
        lengths = [summary["records"] for summary in of_shards]
        if not sum(lengths):
            raise UserError(f"no image of {builder.name}, split {split}, can be decoded: run cbalign data check")
        report["splits"][split], report["skipped"][split] = sum(lengths), skipped
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=builder.name, split=split, filetype_suffix="tfrecord"
        )
        size = sum(summary["bytes"] for summary in of_shards)
        infos.append(tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size, filename_template=template))
    info = builder.info
    info.set_file_format("tfrecord")
    info.set_splits(tfds.core.splits.SplitDict(infos))
    info.write_to_directory(folder)
    side_files = contents.side_files | {BUILD_REPORT: json.dumps(report, indent=1, ensure_ascii=False)}
    for name, text in side_files.items():
        write_atomically(folder / name, text + "\n")
    return report
