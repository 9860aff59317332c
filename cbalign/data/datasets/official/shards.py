"""Writing a data set of `manual.ManualBuilder` as TFRecord files, going on where an earlier attempt stopped.

The records are cut into shards beforehand, by their sizes. A shard is written under a temporary name, renamed, and
signed off by a small JSON file beside it; only a shard without one is written again. All stand in a folder named
`VERSION.incomplete` until the last is there.
"""

import concurrent.futures
import functools
import hashlib
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

from cbalign.data.datasets.official.accounts import REPORT
from cbalign.data.datasets.official.manual import Contents, ManualBuilder, Row, feature_names, record
from cbalign.data.image_files import MAX_PIXELS, BadImage, pillow_limit
from cbalign.data.progress import Progress
from cbalign.errors import UserError

SHARD_BYTES = 200 << 20
_PLAN = "plan.json"
_SEED = 0


class Shard(NamedTuple):
    """One file to be written."""

    split: str
    file: str
    rows: list[Row]


def build(builder: ManualBuilder, contents: Contents, *, workers: int = 1, shard_bytes: int = SHARD_BYTES) -> dict:
    """Writes a data set to `builder.data_path`, from where any builder of its name reads it.

    Args:
      builder: of a data set that is not there yet; to read it, make another.
      contents: what its manual folder holds.
      workers: shards written at a time.
      shard_bytes: size of a shard, about.

    Returns:
      The report, which is also written beside the records: `splits` (records by split), `left_out` (by split, reason
      to names) and `shards`.

    Raises:
      UserError: there is no room, nothing can be written, or no record of a split can be used.
    """
    final = epath.Path(builder.data_path)
    shards = list(_plan(builder, contents, shard_bytes))
    folder = final.parent / f"{final.name}.incomplete"
    try:
        _open_folder(folder, shards)
        todo = [shard for shard in shards if not _sign(folder, shard).exists()]
        _check_room(folder, todo)
        _write_all(type(builder).SCHEMA, folder, shards, todo, workers)
        report = _describe(builder, folder, contents, shards)
        folder.rename(final)
        for file in [final / _PLAN, *(_sign(final, shard) for shard in shards)]:
            file.unlink()
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "message", None) or error
        raise UserError(f"cannot write to {folder} ({reason}): make room there, or give another --data-dir") from None
    return report


def _plan(builder: ManualBuilder, contents: Contents, shard_bytes: int) -> Iterator[Shard]:
    """Cuts every split into shards of about `shard_bytes`, the rows in random order if the data set asks for it."""
    for split, listing in contents.splits.items():
        if not listing.rows:
            raise UserError(f"no record of {builder.name}, split {split}, can be used: see cbalign data check")
        rows = listing.rows
        if builder.SHUFFLE:
            rows = [rows[index] for index in np.random.default_rng(_SEED).permutation(len(rows))]
        ends = np.cumsum([_size(row) for row in rows])
        count = min(-(-int(ends[-1]) // shard_bytes), len(rows))
        cuts = np.searchsorted(ends, ends[-1] * np.arange(1, count) / count)
        # A cut may fall together with another where a single record is larger than a shard.
        cuts = np.unique([0, *cuts, len(rows)]).tolist()
        for number, (start, end) in enumerate(zip(cuts, cuts[1:])):
            name = f"{builder.name}-{split}.tfrecord-{number:05d}-of-{len(cuts) - 1:05d}"
            yield Shard(split, name, rows[start:end])


def _size(row: Row) -> int:
    return sum(image.size for image in row.images)


def _open_folder(folder: epath.Path, shards: list[Shard]) -> None:
    """Makes the folder, or keeps that of an earlier attempt at the same records."""
    digest = hashlib.blake2b(digest_size=16)
    for shard in shards:
        digest.update(shard.file.encode())
        for row in shard.rows:
            digest.update(repr(([image[1:] for image in row.images], row.values)).encode())
    plan = {"fingerprint": digest.hexdigest(), "shards": len(shards)}
    if folder.exists():
        known = folder / _PLAN
        if known.exists() and json.loads(known.read_text()) == plan:
            return
        print(f"the files are not those of an earlier attempt in {folder}: starting anew", flush=True)
        folder.rmtree()
    folder.mkdir(parents=True)
    _write_text(folder / _PLAN, json.dumps(plan))


def _check_room(folder: epath.Path, todo: list[Shard]) -> None:
    if "://" in os.fspath(folder):
        return
    needed = sum(_size(row) for shard in todo for row in shard.rows)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder} has {free / 1e9:.1f} GB free and the images take {needed / 1e9:.1f} GB: make room, or give "
            "another --data-dir"
        )


def _sign(folder: epath.Path, shard: Shard) -> epath.Path:
    return folder / f"{shard.file}.json"


def _write_all(features: Callable, folder: epath.Path, shards: list[Shard], todo: list[Shard], workers: int) -> None:
    """Writes the shards that are not there yet; what is finished stays, also when this is interrupted."""
    total = sum(len(shard.rows) for shard in shards)
    left = sum(len(shard.rows) for shard in todo)
    if len(todo) < len(shards):
        print(f"{len(shards) - len(todo)} of {len(shards)} shards are there from an earlier attempt", flush=True)
    stop = threading.Event()
    with Progress("writing", total, start=total - left) as progress, pillow_limit(MAX_PIXELS), \
            concurrent.futures.ThreadPoolExecutor(workers) as pool:
        # Threads do: reading, decoding and writing let go of the interpreter.
        write = functools.partial(_write, features, folder, progress=progress, stop=stop)
        try:
            for done in concurrent.futures.as_completed([pool.submit(write, shard) for shard in todo]):
                done.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _write(features: Callable, folder: epath.Path, shard: Shard, *, progress: Progress, stop: threading.Event) -> None:
    """Writes one shard and signs it off with its number of records, their bytes and the names of the bad ones."""
    names = feature_names(features())
    encode = tfds.features.FeaturesDict(features())
    serializer = tfds.core.example_serializer.ExampleSerializer(encode.get_serialized_info())
    account = {"records": 0, "bytes": 0, "left_out": {}}
    temporary = folder / f"{shard.file}.partial"
    with tf.io.TFRecordWriter(os.fspath(temporary)) as writer:
        for row in shard.rows:
            if stop.is_set():
                return
            try:
                data = serializer.serialize_example(encode.encode_example(record(names, row)))
            except BadImage as error:
                account["left_out"].setdefault(str(error), []).append(row.images[0].path)
            else:
                writer.write(data)
                account["records"] += 1
                account["bytes"] += len(data)
            progress.update()
    temporary.rename(folder / shard.file)
    _write_text(_sign(folder, shard), json.dumps(account))


def _describe(builder: ManualBuilder, folder: epath.Path, contents: Contents, shards: list[Shard]) -> dict:
    """Writes what TFDS wants to know, the report and the files beside the records; returns the report."""
    accounts = {split: [] for split in contents.splits}
    for shard in shards:
        accounts[shard.split].append(json.loads(_sign(folder, shard).read_text()))
    report = {"splits": {}, "left_out": {}, "shards": len(shards)}
    infos = []
    for split, signed in accounts.items():
        left_out = {reason: list(names) for reason, names in contents.splits[split].left_out.items()}
        for account in signed:
            for reason, names in account["left_out"].items():
                left_out.setdefault(reason, []).extend(names)
        lengths = [account["records"] for account in signed]
        if not sum(lengths):
            raise UserError(f"no image of {builder.name}, split {split}, can be decoded: see cbalign data check")
        report["splits"][split], report["left_out"][split] = sum(lengths), left_out
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=builder.name, split=split, filetype_suffix="tfrecord"
        )
        size = sum(account["bytes"] for account in signed)
        infos.append(
            tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size, filename_template=template)
        )
    info = builder.info
    info.set_file_format("tfrecord")
    info.set_splits(tfds.core.splits.SplitDict(infos))
    info.write_to_directory(folder)
    for name, text in (contents.side_files | {REPORT: json.dumps(report, indent=1, ensure_ascii=False)}).items():
        _write_text(folder / name, text + "\n")
    return report


def _write_text(path: epath.Path, text: str) -> None:
    """Writes a file that appears only when whole."""
    temporary = path.parent / f"{path.name}.partial"
    temporary.write_text(text)
    temporary.rename(path)
