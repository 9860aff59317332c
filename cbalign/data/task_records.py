"""Questions, statements about two images and hypotheses: the records of a split.

An image that many records share is held once. `task_batches` makes batches of them.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
import json

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from cbalign.data.split_index import join, load_index
from cbalign.data.sampling import parse_mixture
from cbalign.data.datasets import schema
from cbalign.data.datasets.catalogue import prepare
from cbalign.data.stored import StoredFeature
from cbalign.errors import UserError

ANSWER_LIST = "answer_list.json"
# Images of a split are held in memory up to this many bytes, else read from disk each time.
MEMORY_LIMIT = 1 << 30

@dataclasses.dataclass(frozen=True)
class _Kind:
    """Where the fields of one kind of record are."""

    features: dict
    images: tuple[str, ...]
    text: str
    identifier: str


_KINDS = {
    "questions": _Kind(schema.questions(), ("image",), "question", "question_id"),
    "image_pairs": _Kind(schema.image_pairs(), ("image_left", "image_right"), "sentence", "identifier"),
    "entailment": _Kind(schema.entailment(), ("image",), "sentence", "pair_id"),
    "captions": _Kind(schema.captions(), ("image",), "captions", "id"),
}


@dataclasses.dataclass(eq=False)
class TaskRecords:
    """One split of a task's data set.

    Attributes:
      images: encoded, each once; or, of a split too large for memory, the stored feature of each side.
      images: int64 [n, 1 or 2], the numbers of the images of each record.
      texts: n raw questions or sentences; of captions the lists of them.
      identifiers: n numbers or names.
      labels: int32 [n], or None for questions and captions.
      answers: n lists of people's answers, or None.
      question_types, answer_types: n words each, or None.
    """

    images: list | tuple[StoredFeature, ...]
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
        """Images of a record."""
        return self.images.shape[1]

    @property
    def image_count(self) -> int:
        """Different images, as far as that is known."""
        return int(self.images.max()) + 1

    def reader(self):
        """A function for use in a graph: int64 scalar, the number of a record -> its encoded images, a list."""
        if isinstance(self.images, tuple):
            return lambda record: [feature.read(record) for feature in self.images]
        images, images = tf.constant(self.images, tf.string), tf.constant(self.images)
        return lambda record: [images[images[record, side]] for side in range(self.sides)]


def load_records(kind: str, name: str, split: str, data_dir: str | None = None) -> TaskRecords:
    """Reads a split of a data set, or several, as in "train+val".

    Args:
      kind: "questions", "image_pairs", "entailment" or "captions", as in `sources.schema`.
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
        columns |= {"images": tuple(StoredFeature(index, image) for image in wanted.images),
                    "images": np.arange(sides * len(index))}
    return TaskRecords(
        columns["images"], np.asarray(columns["images"], np.int64).reshape(-1, sides), columns[wanted.text],
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
    """{feature: list}, with "images", each once, and "images", their numbers, where the records have them."""
    images, place, columns = [], {}, collections.defaultdict(list)
    for record in records:
        for image in kind.images:
            if image not in record:
                continue
            # By content: ids tell images apart within one source only.
            digest = hashlib.blake2b(record[image], digest_size=16).digest()
            if digest not in place:
                place[digest] = len(images)
                images.append(record[image])
            columns["images"].append(place[digest])
        for name in set(record) - set(kind.images):
            columns[name].append(_plain(record[name]))
    return {**columns, "images": images}


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
