"""Questions, statements about two images and hypotheses: texts as token ids, and batches of records.

The same clock as `pipeline`: the batch of step s is a function of (records, seed, s), so a stream may start at any step
and be cut among any number of processes.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from cbalign.data.augment import views
from cbalign.data import stream
from cbalign.data import text
from cbalign.data.pipeline import steps_per_epoch
from cbalign.data.task_records import TaskRecords
from cbalign.errors import UserError

# ALBEF's weight of Visual Genome's questions, which one person answered.
SINGLE_ANSWER_WEIGHT = 0.5

_VIEW = 16


@dataclasses.dataclass(eq=False)
class EncodedTexts:
    """What a task's batches hold beside the images, row i for record i.

    Attributes:
      columns: {name: array [n, ...]}, "text" among them.
      offsets: int64 [n + 1], where several rows of "text" belong to a record; None where each has one.
    """

    columns: dict
    offsets: np.ndarray | None = None


def encode_texts(records: TaskRecords, tokenizer, *, max_length: int, max_words: int = 30) -> EncodedTexts:
    """{"text": int32 [n, max_length]} and {"label": int32 [n]} where there are any; several captions are all kept."""
    groups = [t if isinstance(t, list) else [t] for t in records.texts]
    flat = [text.clean_caption(line, max_words=max_words) for group in groups for line in group]
    columns = {"text": text.encode(tokenizer, flat, max_length=max_length)}
    if records.labels is not None:
        columns["label"] = records.labels
    several = len(flat) != len(groups)
    return EncodedTexts(columns, np.cumsum([0] + [len(g) for g in groups], dtype=np.int64) if several else None)


def encode_answers(tokenizer, answers, *, max_length: int) -> np.ndarray:
    """Answers as the decoder reads and writes them: int32 [n, max_length] of [CLS] x_1 ... [SEP], cleaned."""
    cleaned = [text.clean_caption(answer) for answer in answers]
    return text.encode(tokenizer, cleaned, max_length=max_length, add_sep=True)


def weighted_answers(records: TaskRecords, tokenizer, *, slots: int, max_length: int) -> dict:
    """The distinct answers to each question and how much each counts.

    A weight is the share of people who gave the answer, 0.5 where one person alone was asked (ALBEF
    `dataset/vqa_dataset.py`). Of more than `slots` answers the most frequent are kept; first come goes first.

    Returns:
      {"answers": int32 [n, slots, max_length], "answer_weights": float32 [n, slots]}, empty slots with weight 0.

    Raises:
      UserError: a question without an answer.
    """
    if not all(records.answers):
        bare = sum(not people for people in records.answers)
        raise UserError(f"{bare} of {len(records)} questions have no answer: train on a split that has them")
    distinct = sorted({answer for people in records.answers for answer in people})
    number = {answer: i for i, answer in enumerate(distinct)}
    encoded = encode_answers(tokenizer, distinct, max_length=max_length)
    ids = np.zeros((len(records), slots, max_length), np.int32)
    weights = np.zeros((len(records), slots), np.float32)
    for row, people in enumerate(records.answers):
        for slot, (answer, count) in enumerate(collections.Counter(people).most_common(slots)):
            ids[row, slot] = encoded[number[answer]]
            weights[row, slot] = count / len(people) if len(people) > 1 else SINGLE_ANSWER_WEIGHT
    return {"answers": ids, "answer_weights": weights}


def train_batches(
    records: TaskRecords, encoded: EncodedTexts, *, seed: int, start_step: int = 0, global_batch: int,
    process_index: int = 0, process_count: int = 1, view: dict, threads: int | None = None, prefetch: int = 2,
) -> Iterator[dict[str, np.ndarray]]:
    """The endless stream of training batches from step `start_step` on.

    Args:
      records: what to draw from, once an epoch, in an order that is a function of (seed, epoch).
      encoded: from `encode_texts`, with more columns where the task has them.
      seed: of order and views.
      start_step: the step of the first batch.
      global_batch: N, records a step over all processes.
      process_index, process_count: this process gets rows [process_index * b, (process_index + 1) * b), b = N /
        process_count.
      view: options of `views.train_view` but the seed.
      threads: threads the stream may use; None leaves it to tensorflow.
      prefetch: batches made ahead.

    Yields:
      {"image": uint8 [b, S, S, 3], "image_second": likewise where records have two images, "index": int32 [b], the
      row in the global batch, "image": int32 [b], number of the (first) image, and the columns of `encoded`}.

    Raises:
      UserError: the batch does not fit the records.
    """
    per_epoch = steps_per_epoch(len(records), global_batch)
    if global_batch % process_count:
        raise UserError(f"a global batch of {global_batch} does not divide among {process_count} processes")
    local = global_batch // process_count
    seed = int(seed) & 0x7FFFFFFF

    def rows():
        step, epoch, order = start_step, -1, None
        while True:
            if step // per_epoch != epoch:
                epoch = step // per_epoch
                order = np.random.default_rng([seed, epoch]).permutation(len(records))
            first = step % per_epoch * global_batch + process_index * local
            sample = step * global_batch + process_index * local + np.arange(local)
            yield order[first:first + local], sample
            step += 1

    with tf.device("CPU:0"):
        read = records.reader()

        @views.as_written
        def views(record, sample):
            key = views.derive_seed(tf.stack([tf.constant(seed, tf.int64), sample]), _VIEW)
            return tuple(views.train_view(image, views.derive_seed(key, side << 8), **view)
                         for side, image in enumerate(read(record)))

        def build(numbers):
            dataset = numbers.unbatch().map(views, num_parallel_calls=threads or tf.data.AUTOTUNE)
            return dataset.batch(local, drop_remainder=True).prefetch(prefetch)

        numbers = tf.data.Dataset.from_generator(rows, output_signature=(tf.TensorSpec([local], tf.int64),) * 2)
        images = stream.iterate(numbers, build, threads=threads)
    names = ("image", "image_second")
    for (record, sample), views_of in zip(rows(), images):
        yield {
            **dict(zip(names, views_of)), **_columns(encoded, record, seed, sample),
            "index": (sample % global_batch).astype(np.int32),
            "image": records.images[record, 0].astype(np.int32),
        }


def _columns(encoded: EncodedTexts, record, seed: int, sample) -> dict:
    """The rows of all columns for some records; of several texts one is drawn."""
    if encoded.offsets is None:
        return {name: column[record] for name, column in encoded.columns.items()}
    first, count = encoded.offsets[record], np.diff(encoded.offsets)[record]
    drawn = [np.random.default_rng([seed, int(number)]).integers(n) for number, n in zip(sample, count)]
    return {name: column[first + drawn] if name == "text" else column[record]
            for name, column in encoded.columns.items()}


def eval_batches(records: TaskRecords, encoded: EncodedTexts, *, image_size: int, batch_size: int) -> Iterator[tuple]:
    """Yields (images: one or two of uint8 [B, S, S, 3], text int32 [B, L], how many count), in the records' order.

    The last batch is filled up with its last record, so that all have one shape.
    """
    n = len(records)
    with tf.device("CPU:0"):
        read = records.reader()

        @views.as_written
        def images(row):
            return tuple(views.resize(views.decode(image), image_size) for image in read(tf.minimum(row, n - 1)))

        batches = stream.iterate(
            tf.data.Dataset.range(-(-n // batch_size) * batch_size),
            lambda rows: rows.map(images, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size).prefetch(2))
    for start, images in zip(range(0, n, batch_size), batches):
        rows = np.minimum(np.arange(start, start + batch_size), n - 1)
        yield images, encoded.columns["text"][rows], min(batch_size, n - start)
