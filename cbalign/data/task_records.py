"""Questions, statements about two pictures and hypotheses: from records to batches.

The same clock as `pipeline`: the batch of step s is a function of (records, seed, s), so a stream may start at any step
and be cut among any number of processes. A picture that many records share is held once.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from cbalign.data import augment, text
from cbalign.data.offsets import join, load_index
from cbalign.data.order import parse_mixture
from cbalign.data.pipeline import steps_per_epoch
from cbalign.data.sources import schema
from cbalign.data.sources.catalogue import prepare
from cbalign.data.stored import StoredFeature
from cbalign.errors import UserError

ANSWER_LIST = "answer_list.json"
# ALBEF's weight of Visual Genome's questions, which one person answered.
SINGLE_ANSWER_WEIGHT = 0.5

# Pictures of a split are held in memory up to this many bytes, else read from disk each time.
MEMORY_LIMIT = 1 << 30

_VIEW = 16


@dataclasses.dataclass(frozen=True)
class _Kind:
    """Where the fields of one kind of record are."""

    features: dict
    images: tuple[str, ...]
    text: str
    identifier: str


_KINDS = {
    "questions": _Kind(schema.questions(), ("image",), "question", "question_id"),
    "picture_pairs": _Kind(schema.picture_pairs(), ("image_left", "image_right"), "sentence", "identifier"),
    "entailment": _Kind(schema.entailment(), ("image",), "sentence", "pair_id"),
    "captions": _Kind(schema.captions(), ("image",), "captions", "id"),
}


@dataclasses.dataclass(eq=False)
class TaskRecords:
    """One split of a task's data set.

    Attributes:
      pictures: encoded, each once; or, of a split too large for memory, the stored feature of each side.
      images: int64 [n, 1 or 2], the numbers of the pictures of each record.
      texts: n raw questions or sentences; of captions the lists of them.
      identifiers: n numbers or names.
      labels: int32 [n], or None for questions and captions.
      answers: n lists of people's answers, or None.
      question_types, answer_types: n words each, or None.
    """

    pictures: list | tuple[StoredFeature, ...]
    images: np.ndarray
    texts: list
    identifiers: list
    labels: np.ndarray | None = None
    answers: list | None = None
    question_types: list | None = None
    answer_types: list | None = None

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def sides(self) -> int:
        """Pictures of a record."""
        return self.images.shape[1]

    @property
    def picture_count(self) -> int:
        """Different pictures, as far as that is known."""
        return int(self.images.max()) + 1

    def reader(self):
        """A function for use in a graph: int64 scalar, the number of a record -> its encoded pictures, a list."""
        if isinstance(self.pictures, tuple):
            return lambda record: [feature.read(record) for feature in self.pictures]
        pictures, images = tf.constant(self.pictures, tf.string), tf.constant(self.images)
        return lambda record: [pictures[images[record, side]] for side in range(self.sides)]


def load_records(kind: str, name: str, split: str, data_dir: str | None = None) -> TaskRecords:
    """Reads a split of a data set, or several, as in "train+val".

    Args:
      kind: "questions", "picture_pairs", "entailment" or "captions", as in `sources.schema`.
      name, data_dir: as for `catalogue.prepare`; several data sets as in `A+B`, one after another.
      split: name of a split of each, a slice, or a sum of them.

    Raises:
      UserError: a data set is unknown, has no such split, is of another kind, or has a weight.
    """
    wanted = _KINDS[kind]
    sources = parse_mixture(name)
    if any(weight != 1 for _, weight in sources):
        raise UserError(f"data.name={name}: weights of data sets are for pretraining; name each without one")
    builders = [_checked(kind, source, split, data_dir) for source, _ in sources]
    names = list(wanted.features)
    stored = sum(_bytes(builder, split) for builder in builders) > MEMORY_LIMIT
    if stored:
        names = [feature for feature in names if feature not in wanted.images]
        decoders = tfds.decode.PartialDecoding(dict.fromkeys(names, True))
    else:
        decoders = {image: tfds.decode.SkipDecoding() for image in wanted.images}
    # One shard after another: the order of the index.
    options = dict(split=split, decoders=decoders, shuffle_files=False,
                   read_config=tfds.ReadConfig(interleave_cycle_length=1))
    columns = _collect(wanted, itertools.chain.from_iterable(
        builder.as_dataset(**options).map(lambda record: {feature: record[feature] for feature in names})
        .as_numpy_iterator() for builder in builders))
    sides = len(wanted.images)
    if stored:
        index = join([load_index(builder, split) for builder in builders])
        columns |= {"pictures": tuple(StoredFeature(index, image) for image in wanted.images),
                    "images": np.arange(sides * len(index))}
    return TaskRecords(
        columns["pictures"], np.asarray(columns["images"], np.int64).reshape(-1, sides), columns[wanted.text],
        columns[wanted.identifier], np.asarray(columns["label"], np.int32) if "label" in columns else None,
        *(columns.get(name) for name in ("answers", "question_type", "answer_type")),
    )


def _checked(kind: str, name: str, split: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """The builder of a data set that has the features of the kind and the split."""
    builder = prepare(name, data_dir)
    lacking = [feature for feature in _KINDS[kind].features if feature not in builder.info.features]
    if lacking:
        raise UserError(f"{name} is no data set of {kind.replace('_', ' ')}: it has no {', '.join(lacking)}; set "
                        "data.name to one that the task can use")
    known = list(builder.info.splits)
    for part in split.split("+"):
        if part.split("[")[0].strip() not in known:
            raise UserError(f"{name} has no split {part.strip()}: give one of {', '.join(known)}")
    return builder


def _collect(kind: _Kind, records) -> dict:
    """{feature: list}, with "pictures", each once, and "images", their numbers, where the records have them."""
    pictures, place, columns = [], {}, collections.defaultdict(list)
    for record in records:
        for image in kind.images:
            if image not in record:
                continue
            # By content: ids tell pictures apart within one source only.
            digest = hashlib.blake2b(record[image], digest_size=16).digest()
            if digest not in place:
                place[digest] = len(pictures)
                pictures.append(record[image])
            columns["images"].append(place[digest])
        for name in set(record) - set(kind.images):
            columns[name].append(_plain(record[name]))
    return {**columns, "pictures": pictures}


def _bytes(builder, split: str) -> float:
    """Size of the splits a split or a sum of them is cut from."""
    names = {part.split("[")[0].strip() for part in split.split("+")}
    return sum(builder.info.splits[name].num_bytes for name in names)


def _plain(value):
    """Text for bytes, lists for arrays of them, Python's numbers for numpy's."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray):
        return [_plain(x) for x in value.tolist()]
    return value.item() if hasattr(value, "item") else value


def answer_list(name: str, records: TaskRecords, data_dir: str | None = None) -> list[str]:
    """The answers a model may give: those that come with the data set, else all that were given in `records`.

    The data set's own are in `answer_list.json` beside its records (`vqa_v2` writes that file). The others are sorted,
    the most frequent first.
    """
    for source, _ in parse_mixture(name):
        file = prepare(source, data_dir).data_path / ANSWER_LIST
        if file.exists():
            return json.loads(file.read_text())
    counts = collections.Counter(answer for people in records.answers or () for answer in set(people))
    return sorted(counts, key=lambda answer: (-counts[answer], answer))


@dataclasses.dataclass(eq=False)
class EncodedTexts:
    """What a task's batches hold beside the pictures, row i for record i.

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
      view: options of `augment.train_view` but the seed.
      threads: threads the stream may use; None leaves it to tensorflow.
      prefetch: batches made ahead.

    Yields:
      {"image": uint8 [b, S, S, 3], "image_second": likewise where records have two pictures, "index": int32 [b], the
      row in the global batch, "picture": int32 [b], number of the (first) picture, and the columns of `encoded`}.

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

        def views(record, sample):
            key = augment.derive_seed(tf.stack([tf.constant(seed, tf.int64), sample]), _VIEW)
            return tuple(augment.train_view(picture, augment.derive_seed(key, side << 8), **view)
                         for side, picture in enumerate(read(record)))

        numbers = tf.data.Dataset.from_generator(rows, output_signature=(tf.TensorSpec([local], tf.int64),) * 2)
        dataset = numbers.unbatch().map(views, num_parallel_calls=threads or tf.data.AUTOTUNE)
        dataset = dataset.batch(local, drop_remainder=True).prefetch(prefetch).with_options(_options(threads))
        images = dataset.as_numpy_iterator()
    names = ("image", "image_second")
    for (record, sample), views_of in zip(rows(), images):
        yield {
            **dict(zip(names, views_of)), **_columns(encoded, record, seed, sample),
            "index": (sample % global_batch).astype(np.int32),
            "picture": records.images[record, 0].astype(np.int32),
        }


def _columns(encoded: EncodedTexts, record, seed: int, sample) -> dict:
    """The rows of all columns for some records; of several texts one is drawn."""
    if encoded.offsets is None:
        return {name: column[record] for name, column in encoded.columns.items()}
    first, count = encoded.offsets[record], np.diff(encoded.offsets)[record]
    drawn = [np.random.default_rng([seed, int(number)]).integers(n) for number, n in zip(sample, count)]
    return {name: column[first + drawn] if name == "text" else column[record]
            for name, column in encoded.columns.items()}


def _options(threads: int | None) -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    options.threading.max_intra_op_parallelism = 1
    if threads:
        options.threading.private_threadpool_size = threads
        options.autotune.enabled = False
    return options


def eval_batches(records: TaskRecords, encoded: EncodedTexts, *, image_size: int, batch_size: int) -> Iterator[tuple]:
    """Yields (pictures: one or two of uint8 [B, S, S, 3], text int32 [B, L], how many count), in the records' order.

    The last batch is filled up with its last record, so that all have one shape.
    """
    n = len(records)
    with tf.device("CPU:0"):
        read = records.reader()
        dataset = tf.data.Dataset.range(-(-n // batch_size) * batch_size).map(
            lambda row: tuple(augment.resize(augment.decode(picture), image_size)
                              for picture in read(tf.minimum(row, n - 1))), num_parallel_calls=tf.data.AUTOTUNE)
        batches = dataset.batch(batch_size).prefetch(2).with_options(_options(None)).as_numpy_iterator()
    for start, images in zip(range(0, n, batch_size), batches):
        rows = np.minimum(np.arange(start, start + batch_size), n - 1)
        yield images, encoded.columns["text"][rows], min(batch_size, n - start)
