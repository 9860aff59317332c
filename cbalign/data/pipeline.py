"""From records to batches, the same way for every task: order, texts, decoding, augmentation, batching, prefetch.

All randomness is a function of (seed, step). The batch of step s depends on (records, columns, seed, s) alone: sample
k = s N + j of the run is row j of step s, its record, or its pair of a record and a text, follows from a shuffle keyed
by (seed, epoch), and its views and, of a record, its text are drawn from (seed, k). So a stream may start at any step,
and be split among any number of processes, without changing a bit.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from cbalign.data import stream
from cbalign.data.augment import views
from cbalign.data.replacement import PROBES, decode_parts, first_good
from cbalign.data.sampling import records_at
from cbalign.data.seeds import IMAGE_NAMES, VIEWS, Purpose
from cbalign.errors import UserError

if TYPE_CHECKING:
    from cbalign.data.columns import Columns
    from cbalign.data.records import Records

MAX_BAD_SHARE = 0.01
"""Share of the samples whose records may be bad and replaced."""

# The share of bad samples is judged as if at least so many had been seen.
_JUDGED_SAMPLES = 1000
_GREY = 128


def steps_per_epoch(count: int, global_batch: int) -> int:
    """Returns the whole batches in `count` samples; what is left over waits for the next epoch's shuffle.

    Raises:
      UserError: not even one batch.
    """
    if not 0 < global_batch <= count:
        raise UserError(f"a global batch of {global_batch} does not fit {count} records: use 1 to {count}")
    return count // global_batch


def train_batches(
    records: Records,
    columns: Columns,
    *,
    seed: int,
    start_step: int = 0,
    global_batch: int,
    process_index: int = 0,
    process_count: int = 1,
    image_size: int,
    scale,
    second_view: bool = False,
    prefetch: int = 2,
    threads: int | None = None,
    max_bad_share: float = MAX_BAD_SHARE,
    **distortions,
) -> Iterator[dict[str, np.ndarray]]:
    """Returns the endless stream of training batches from step `start_step` on.

    Args:
      records: to draw from.
      columns: their texts and other arrays.
      seed: of order, texts and views.
      start_step: the step of the first batch; any costs the same.
      global_batch: N, samples a step over all processes.
      process_index: this process; it gets rows [process_index * b, (process_index + 1) * b) of the global batch.
      process_count: number of processes; b = N / process_count.
      image_size: side of the views.
      scale: (least, greatest) share of the area a crop keeps.
      second_view: whether to draw a second, independent view of each image, for the teacher.
      prefetch: batches made ahead.
      threads: threads the stream may use; None leaves it to tensorflow.
      max_bad_share: share of this process's samples since `start_step` whose records may be bad, judged as if there
        had been at least a thousand.
      **distortions: flip, rand_augment, num_ops, magnitude, color, as in `views.finish_view`.

    Returns:
      An iterator of flat dictionaries of read-only arrays: "image" uint8 [b, S, S, 3]; "image_second" likewise of
      records with two images; "image_teacher", "image_second_teacher" if `second_view`; "text" int32 [b, L]; each of
      `columns.arrays` [b, ...]; "index" int32 [b], the row in the global batch; "replaced" bool [b], whether another
      record replaces a bad one (see `replacement`).

    Raises:
      UserError: the batch does not fit the records or the processes; while iterating: too many bad records.
    """
    per_epoch = steps_per_epoch(records.epoch_size, global_batch)
    if global_batch % process_count:
        raise UserError(f"a global batch of {global_batch} does not divide among {process_count} processes")
    if columns.silent > max_bad_share * len(records):
        raise UserError(
            f"{columns.silent} of {len(records)} records have no caption, which is more than "
            f"data.max_bad_share={max_bad_share:g}: remove them or caption them"
        )
    local_batch = global_batch // process_count
    # Stateless seeds are told apart by adding multiples of 2^32 to the first number, which has to stay below.
    seed = int(seed) & 0x7FFFFFFF
    with tf.device("CPU:0"):
        sample = _Sample(records, columns, seed, image_size, scale, second_view, distortions)

        @views.as_written
        def rows_of(step):
            row = tf.range(process_index * local_batch, (process_index + 1) * local_batch, dtype=tf.int64)
            position = (step % per_epoch) * global_batch + row
            unit = records_at(position, step // per_epoch, seed=seed, parts=records.parts)
            return {"unit": unit, "row": tf.cast(row, tf.int32), "sample": step * global_batch + row}

        def build(steps):
            dataset, finish = steps.map(rows_of).unbatch(), sample.whole
            if sample.may_fail:
                dataset = first_good(dataset, sample.read, parts=records.parts, marker=sample.marker(), threads=threads)
                finish = sample.finish
            dataset = dataset.map(views.as_written(finish), num_parallel_calls=threads or tf.data.AUTOTUNE)
            return dataset.batch(local_batch, drop_remainder=True).prefetch(prefetch)

        batches = stream.iterate(tf.data.Dataset.counter(start_step), build, threads=threads)
    return _judged(batches, columns, max_bad_share)


class _Sample:
    """The graph of one sample: from the number of its unit, a record or a pair, to its images and its text."""

    def __init__(
        self, records: Records, columns: Columns, seed: int, size: int, scale, second_view: bool, distortions: dict
    ):
        self._read, self._seed, self._size, self._scale = records.read, seed, size, scale
        self._distortions, self._plain_rgb = distortions, records.images.plain_rgb
        shown = 1 + second_view
        self._views = [dict(list(views_of.items())[:shown]) for views_of in VIEWS[: records.sides]]
        self._texts = (_TextOfPair if records.over_pairs else _TextOfRecord)(columns)
        self._token_ids = tf.constant(columns.text)
        # With all images decoded in memory and a text for each, no record can be bad.
        self.may_fail = self._texts.may_fail or not records.images.decoded

    def _key(self, drawn):
        return tf.stack([tf.constant(self._seed, tf.int64), drawn["sample"]])

    def whole(self, drawn) -> dict:
        """The row of a sample whose record cannot be bad."""
        images, key = self._read(self._texts.record(drawn["unit"])), self._key(drawn)
        out = self._in_turn(
            lambda side, purpose, number: views.train_view(
                tf.identity(images[side]),
                views.derive_seed(key, purpose),
                size=self._size,
                scale=self._scale,
                **self._distortions,
            )
        )
        return out | self._text(drawn) | {"replaced": tf.constant(False)}

    def read(self, drawn) -> dict:
        """Reads the images and decodes the parts that their views show; raises where the record is bad."""
        key, found = self._key(drawn), {}
        with tf.control_dependencies([tf.debugging.assert_positive(self._texts.count(drawn["unit"]))]):
            images = self._read(tf.identity(self._texts.record(drawn["unit"])))
        for side, purposes in enumerate(self._views):

            def boxes(height, width, purposes=purposes):
                return tf.stack(
                    [
                        tf.stack(views.view_box(height, width, views.derive_seed(key, purpose), scale=self._scale))
                        for purpose in purposes.values()
                    ]
                )

            found[f"part{side}"], found[f"places{side}"] = decode_parts(images[side], boxes, plain_rgb=self._plain_rgb)
        return {**drawn, **found}

    def marker(self) -> dict:
        """A dictionary like that of `read`, for a sample that is lost."""
        zero = tf.constant(0, tf.int64)
        found = {"unit": zero, "row": tf.constant(0, tf.int32), "sample": zero}
        for side, purposes in enumerate(self._views):
            found[f"part{side}"] = tf.zeros([3, 3, 3], tf.uint8)
            found[f"places{side}"] = tf.tile(tf.constant([[0, 0, 3, 3]]), [len(purposes), 1])
        return found

    def finish(self, found) -> dict:
        """The row of a sample that `read` has read, with "lost"."""
        key = self._key(found)
        out = self._in_turn(
            lambda side, purpose, number: views.finish_view(
                views.crop(found[f"part{side}"], tf.unstack(found[f"places{side}"][number])),
                views.derive_seed(key, purpose),
                size=self._size,
                **self._distortions,
            )
        )
        # A lost record may lack texts; the row is never seen.
        return out | self._text(found) | {"replaced": found["replaced"], "lost": found["lost"]}

    def _in_turn(self, view) -> dict:
        """The views by name, one after the other: side by side they would wake a second thread every few operations."""
        out = {}
        for side, purposes in enumerate(self._views):
            for number, (name, purpose) in enumerate(purposes.items()):
                with tf.control_dependencies(list(out.values())):
                    out[name] = view(side, purpose, number)
        return out

    def _text(self, drawn) -> dict:
        return {
            "text": tf.cast(tf.gather(self._token_ids, self._texts.row(drawn["unit"], self._key(drawn))), tf.int32),
            "record": self._texts.record(drawn["unit"]),
            "index": drawn["row"],
        }


class _TextOfRecord:
    """The text of a sample whose unit is a record: one of its texts, drawn uniformly."""

    def __init__(self, columns: Columns):
        offsets, rows = columns.drawable
        self.may_fail = bool(columns.silent)
        self._offsets = tf.constant(offsets, tf.int64)
        self._rows = None if rows is None else tf.constant(rows, tf.int64)

    def record(self, unit):
        """The record of a unit."""
        return unit

    def count(self, unit):
        """How many texts there are to draw from; of a bad unit 0."""
        return tf.gather(self._offsets, unit + 1) - tf.gather(self._offsets, unit)

    def row(self, unit, key):
        """The row of the columns that holds the text; of a bad unit any."""
        draw = tf.random.stateless_uniform([], views.derive_seed(key, Purpose.CAPTION), dtype=tf.float64)
        drawn = tf.cast(draw * tf.cast(self.count(unit), tf.float64), tf.int64)
        row = tf.gather(self._offsets, unit) + drawn
        return row if self._rows is None else tf.gather(self._rows, tf.minimum(row, tf.size(self._rows, tf.int64) - 1))


class _TextOfPair:
    """The same for a sample whose unit is a pair: the pair's own text, which is bad where it has no words."""

    def __init__(self, columns: Columns):
        self.may_fail = columns.wordless is not None
        self._offsets = None if columns.text_offsets is None else tf.constant(columns.text_offsets, tf.int64)
        self._wordless = None if columns.wordless is None else tf.constant(columns.wordless)

    def record(self, unit):
        """See `_TextOfRecord.record`."""
        if self._offsets is None:
            return unit
        return tf.searchsorted(self._offsets, unit[tf.newaxis], side="right", out_type=tf.int64)[0] - 1

    def count(self, unit):
        """See `_TextOfRecord.count`."""
        if self._wordless is None:
            return tf.ones_like(unit)
        return 1 - tf.cast(tf.gather(self._wordless, unit), tf.int64)

    def row(self, unit, key):
        """See `_TextOfRecord.row`."""
        del key
        return unit


def _judged(batches, columns: Columns, max_bad_share: float) -> Iterator[dict]:
    """Adds the other columns to the batches, and stops when too many of their samples were replaced."""
    seen = replaced = 0
    for batch in batches:
        lost, record = batch.pop("lost", None), batch.pop("record")
        seen, replaced = seen + len(batch["replaced"]), replaced + int(batch["replaced"].sum())
        if lost is not None and lost.any():
            raise UserError(
                f"a record and the {PROBES - 1} that could replace it are bad, as were {replaced} of {seen} "
                "samples so far: check that the files of the data set are still there and complete"
            )
        if replaced > max_bad_share * max(seen, _JUDGED_SAMPLES):
            raise UserError(
                f"{replaced} of {seen} samples had bad records, which is more than "
                f"data.max_bad_share={max_bad_share:g}: mend the data, or allow more"
            )
        yield batch | {name: array[record] for name, array in columns.arrays.items()}


def eval_batches(
    records: Records,
    columns: Columns | None = None,
    *,
    image_size: int,
    batch_size: int,
    threads: int | None = None,
    max_bad_share: float = MAX_BAD_SHARE,
    rows: np.ndarray | None = None,
) -> Iterator[tuple[dict[str, np.ndarray], int]]:
    """Yields (batch, how many rows count), in the order of the records.

    The last batch is filled up with its last record, so that all have one shape. Grey replaces the images of a record
    that cannot be read or decoded; their number is logged at the end.

    Args:
      records: to evaluate.
      columns: their texts and other arrays; None for images alone.
      image_size: side of the images; the aspect is not kept.
      batch_size: B.
      threads: as for `train_batches`.
      max_bad_share: share of the records whose images may be bad.
      rows: numbers of the records to take, in this order; all by default.

    Yields:
      ({"image" uint8 [B, S, S, 3], "image_second" likewise of records with two images; with columns: "text" int32
      [B, L], the first text of each record, and each of `columns.arrays` [B, ...]}, number of valid rows).

    Raises:
      UserError: more than `max_bad_share` of the records have bad images.
    """
    rows = np.arange(len(records)) if rows is None else np.asarray(rows)
    count, bad = len(rows), 0
    padded = rows[np.minimum(np.arange(-(-count // batch_size) * batch_size), count - 1)]

    def build(numbers):
        return _eval_images(numbers, records, image_size, threads).batch(batch_size, drop_remainder=True).prefetch(2)

    # The generator must not be left while a device scope is open.
    with tf.device("CPU:0"):
        batches = stream.iterate(tf.data.Dataset.from_tensor_slices(padded.astype(np.int64)), build, threads=threads)
    for start, (images, lost) in zip(range(0, len(padded), batch_size), batches):
        valid = min(batch_size, count - start)
        bad += int(lost[:valid].sum())
        if bad > max_bad_share * count:
            raise UserError(
                f"{bad} of the first {start + valid} records have images that cannot be read, which is "
                f"more than {max_bad_share:g} of {count}: mend the data set"
            )
        batch, chosen = dict(zip(IMAGE_NAMES, images)), padded[start : start + batch_size]
        if columns is not None:
            batch |= {"text": columns.first_text(chosen)}
            batch |= {name: array[chosen] for name, array in columns.arrays.items()}
        yield batch, valid
    if bad:
        logging.getLogger(__name__).warning("%d of %d records have unreadable images; grey replaces them", bad, count)


def _eval_images(numbers: tf.data.Dataset, records: Records, size: int, threads: int | None) -> tf.data.Dataset:
    """Pairs (images, one or two uint8 [size, size, 3], whether one is lost)."""
    plain_rgb = records.images.plain_rgb

    @views.as_written
    def read(number):
        images = records.read(number)
        whole = [views.decode(image, plain_rgb=plain_rgb) if image.dtype == tf.string else image for image in images]
        return tuple(views.resize(image, size) for image in whole), False

    @views.as_written
    def attempts(number):
        grey = tf.fill([size, size, 3], tf.constant(_GREY, tf.uint8))
        lost = tf.data.Dataset.from_tensors(((grey,) * records.sides, True))
        return tf.data.Dataset.from_tensors(number).map(read).ignore_errors().concatenate(lost).take(1)

    calls = threads or tf.data.AUTOTUNE
    if records.images.decoded:
        return numbers.map(read, num_parallel_calls=calls)
    return numbers.interleave(
        attempts, cycle_length=threads or (os.cpu_count() or 1), num_parallel_calls=calls, deterministic=True
    )
