"""From records to batches: order, captions, decoding, augmentation, batching, prefetch.

The global step is the only clock. The batch of step s is a function of (records, seed, s): sample number k = s N + j
of the run is row j of step s, its record follows from a shuffle keyed by (seed, epoch), and its caption and its views
are drawn from (seed, k). A stream may therefore start at any step, and be cut among any number of processes, without
a change of a single bit.
"""

import logging
import os
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from cbalign.data.augment import views
from cbalign.data import stream
from cbalign.data.sampling import records_at
from cbalign.data.replacement import PROBES, decode_parts, first_good
from cbalign.data.records import Records, open_split
from cbalign.errors import UserError

__all__ = ["Records", "eval_images", "open_split", "steps_per_epoch", "train_batches"]

MAX_BAD_SHARE = 0.01
"""Share of the samples that may be replaced because their records are bad."""

# Fewer samples than this count as so many when the share of bad ones is judged.
_JUDGED_SAMPLES = 1000
# Purposes of seeds, beside those of `order`; a view uses a few numbers above its own.
_CAPTION, _FIRST_VIEW, _SECOND_VIEW = 2, 16, 32
_GREY = 128


def steps_per_epoch(count: int, global_batch: int) -> int:
    """Returns the whole batches in `count` records; what is left over waits for the next epoch's shuffle.

    Raises:
      UserError: not even one batch.
    """
    if not 0 < global_batch <= count:
        raise UserError(f"a global batch of {global_batch} does not fit {count} records: use 1 to {count}")
    return count // global_batch


def train_batches(
    records: Records, *, seed: int, start_step: int = 0, global_batch: int, process_index: int = 0,
    process_count: int = 1, image_size: int, scale, second_view: bool = False, prefetch: int = 2,
    threads: int | None = None, max_bad_share: float = MAX_BAD_SHARE, **distortions,
) -> Iterator[dict[str, np.ndarray]]:
    """Returns the endless stream of training batches from step `start_step` on.

    Args:
      records: what to draw from.
      seed: of order, captions and views.
      start_step: the step of the first batch; any costs the same.
      global_batch: N, samples a step over all processes.
      process_index: this process; it gets rows [process_index * b, (process_index + 1) * b) of the global batch.
      process_count: number of processes; b = N / process_count.
      image_size: side of the views.
      scale: (least, greatest) share of the area a crop keeps.
      second_view: whether to draw a second, independent view.
      prefetch: batches made ahead.
      threads: threads the stream may use; None leaves it to tensorflow.
      max_bad_share: share of this process's samples since `start_step` that may be replaced; the first thousand count
        as a whole.
      **distortions: flip, rand_augment, num_ops, magnitude, color, as in `views.finish_view`.

    Returns:
      An iterator of read-only arrays: "image" uint8 [b, H, W, 3]; "image_teacher" likewise, if `second_view`; "text"
      int32 [b, L]; "id" int32 [b]; "index" int32 [b], the row in the global batch; "replaced" bool [b], whether
      another record stands in for a bad one (see `reading`).

    Raises:
      UserError: the batch does not fit the records or the processes; while iterating: too many bad records.
    """
    per_epoch = steps_per_epoch(records.epoch_size, global_batch)
    if global_batch % process_count:
        raise UserError(f"a global batch of {global_batch} does not divide among {process_count} processes")
    if records.silent > max_bad_share * len(records):
        raise UserError(f"{records.silent} of {len(records)} records have no caption, which is more than "
                        f"data.max_bad_share={max_bad_share:g}: remove them or caption them")
    local_batch = global_batch // process_count
    # Stateless seeds are told apart by adding multiples of 2^32 to the first number, which has to stay below.
    seed = int(seed) & 0x7FFFFFFF
    with tf.device("CPU:0"):
        sample = _Sample(records, seed, image_size, scale, second_view, distortions)

        @views.as_written
        def rows_of(step):
            row = tf.range(process_index * local_batch, (process_index + 1) * local_batch, dtype=tf.int64)
            position = (step % per_epoch) * global_batch + row
            record = records_at(position, step // per_epoch, seed=seed, parts=records.parts)
            return {"record": record, "row": tf.cast(row, tf.int32), "sample": step * global_batch + row}

        def build(steps):
            dataset, finish = steps.map(rows_of).unbatch(), sample.whole
            if sample.may_fail:
                dataset = first_good(dataset, sample.read, parts=records.parts, marker=sample.marker(), threads=threads)
                finish = sample.finish
            dataset = dataset.map(views.as_written(finish), num_parallel_calls=threads or tf.data.AUTOTUNE)
            return dataset.batch(local_batch, drop_remainder=True).prefetch(prefetch)

        batches = stream.iterate(tf.data.Dataset.counter(start_step), build, threads=threads)
    return _judged(batches, records, max_bad_share)


class _Sample:
    """The graph of one sample: from the number of its record to its row of the batch."""

    def __init__(self, records: Records, seed: int, size: int, scale, second_view: bool, distortions: dict):
        self._read, self._seed, self._size, self._scale = records.read, seed, size, scale
        self._distortions = distortions
        self._views = {"image": _FIRST_VIEW, **({"image_teacher": _SECOND_VIEW} if second_view else {})}
        offsets, rows = records.drawable
        self._offsets = tf.constant(offsets, tf.int64)
        self._rows = None if rows is None else tf.constant(rows, tf.int64)
        self._token_ids, self._ids = tf.constant(records.token_ids), tf.constant(records.ids, tf.int32)
        # Images that lie decoded in memory, each with a caption, leave nothing to go wrong.
        self.may_fail = bool(records.silent) or not records.decoded

    def _key(self, drawn):
        return tf.stack([tf.constant(self._seed, tf.int64), drawn["sample"]])

    def whole(self, drawn) -> dict:
        """The row of a sample with which nothing can go wrong."""
        image, key = self._read(drawn["record"]), self._key(drawn)
        out = self._in_turn(lambda purpose, number: views.train_view(
            tf.identity(image), views.derive_seed(key, purpose), size=self._size, scale=self._scale,
            **self._distortions,
        ))
        return out | self._texts(drawn) | {"replaced": tf.constant(False)}

    def read(self, drawn) -> dict:
        """Reads the image and decodes the parts that its views show; raises where the record is bad."""
        key = self._key(drawn)

        def boxes(height, width):
            return tf.stack([
                tf.stack(views.view_box(height, width, views.derive_seed(key, purpose), scale=self._scale))
                for purpose in self._views.values()
            ])

        captions = tf.gather(self._offsets, drawn["record"] + 1) - tf.gather(self._offsets, drawn["record"])
        with tf.control_dependencies([tf.debugging.assert_positive(captions)]):
            part, places = decode_parts(self._read(drawn["record"]), boxes)
        return {**drawn, "part": part, "places": places}

    def marker(self) -> dict:
        """A dictionary like that of `read`, for a sample that is lost."""
        views = len(self._views)
        return {
            "record": tf.constant(0, tf.int64), "row": tf.constant(0, tf.int32), "sample": tf.constant(0, tf.int64),
            "part": tf.zeros([3, 3, 3], tf.uint8), "places": tf.tile(tf.constant([[0, 0, 3, 3]]), [views, 1]),
        }

    def finish(self, found) -> dict:
        """The row of a sample that `read` has read, with "lost"."""
        part, places, key = found["part"], found["places"], self._key(found)
        out = self._in_turn(lambda purpose, number: views.finish_view(
            views.crop(part, tf.unstack(places[number])), views.derive_seed(key, purpose), size=self._size,
            **self._distortions,
        ))
        # A lost record may lack captions; what stands here is never seen.
        out |= self._texts(found) | {"replaced": found["replaced"], "lost": found["lost"]}
        return out | {"record": found["record"]}

    def _in_turn(self, view) -> dict:
        """The views by name, one after the other: side by side they would wake a second thread every few operations."""
        out = {}
        for number, (name, purpose) in enumerate(self._views.items()):
            with tf.control_dependencies(list(out.values())):
                out[name] = view(purpose, number)
        return out

    def _texts(self, drawn) -> dict:
        row = _drawn_caption(self._offsets, drawn["record"], self._key(drawn))
        row = row if self._rows is None else tf.gather(self._rows, tf.minimum(row, tf.size(self._rows, tf.int64) - 1))
        tokens = tf.cast(tf.gather(self._token_ids, row), tf.int32)
        return {"text": tokens, "id": tf.gather(self._ids, drawn["record"]), "index": drawn["row"]}


def _drawn_caption(offsets, record, key):
    """The number of a caption, drawn uniformly from those of the record."""
    first = tf.gather(offsets, record)
    count = tf.gather(offsets, record + 1) - first
    draw = tf.random.stateless_uniform([], views.derive_seed(key, _CAPTION), dtype=tf.float64)
    return first + tf.cast(draw * tf.cast(count, tf.float64), tf.int64)


def _judged(batches, records: Records, max_bad_share: float) -> Iterator[dict]:
    """Hands the batches on, and stops when too many of their samples were replaced."""
    seen = replaced = 0
    for batch in batches:
        lost = batch.pop("lost", None)
        batch.pop("record", None)
        seen, replaced = seen + len(batch["replaced"]), replaced + int(batch["replaced"].sum())
        if lost is not None and lost.any():
            raise UserError(f"a record and the {PROBES - 1} that could stand in for it are bad, {replaced} of {seen} "
                            "samples were so far: see whether the files of the data set are still there and whole")
        if replaced > max_bad_share * max(seen, _JUDGED_SAMPLES):
            raise UserError(f"{replaced} of {seen} samples had bad records, which is more than "
                            f"data.max_bad_share={max_bad_share:g}: mend the data, or allow more")
        yield batch


def eval_images(
    records: Records, *, image_size: int, batch_size: int, threads: int | None = None,
    max_bad_share: float = MAX_BAD_SHARE,
) -> Iterator[tuple[np.ndarray, int]]:
    """Yields (images uint8 [batch_size, image_size, image_size, 3], how many count), in the order of the records.

    The last batch is filled up with its last image, so that all have one shape. A grey image stands for one that
    cannot be read or decoded; how many there were is logged at the end.

    Raises:
      UserError: more than `max_bad_share` of the images are bad.
    """
    count, bad = len(records), 0
    padded = -(-count // batch_size) * batch_size

    def build(numbers):
        images = _eval_images(numbers, records, image_size, threads)
        return images.batch(batch_size, drop_remainder=True).prefetch(2)

    # The generator must not be left while a device scope is open.
    with tf.device("CPU:0"):
        batches = stream.iterate(tf.data.Dataset.range(padded), build, threads=threads)
    for start, (batch, lost) in zip(range(0, padded, batch_size), batches):
        valid = min(batch_size, count - start)
        bad += int(lost[:valid].sum())
        if bad > max_bad_share * count:
            raise UserError(f"{bad} of the first {start + valid} images cannot be read, which is more than "
                            f"{max_bad_share:g} of {count}: mend the data set")
        yield batch, valid
    if bad:
        logging.getLogger(__name__).warning("%d of %d images cannot be read; grey stands for them", bad, count)


def _eval_images(numbers: tf.data.Dataset, records: Records, size: int, threads: int | None) -> tf.data.Dataset:
    """Pairs (image uint8 [size, size, 3], whether it is lost); a number beyond the last record stands for that."""
    last = len(records) - 1

    @views.as_written
    def read(number):
        image = records.read(tf.minimum(number, last))
        return views.resize(views.decode(image) if image.dtype == tf.string else image, size), False

    @views.as_written
    def attempts(number):
        grey = tf.data.Dataset.from_tensors((tf.fill([size, size, 3], tf.constant(_GREY, tf.uint8)), True))
        return tf.data.Dataset.from_tensors(number).map(read).ignore_errors().concatenate(grey).take(1)

    calls = threads or tf.data.AUTOTUNE
    if records.decoded:
        return numbers.map(read, num_parallel_calls=calls)
    return numbers.interleave(
        attempts, cycle_length=threads or (os.cpu_count() or 1), num_parallel_calls=calls, deterministic=True
    )
