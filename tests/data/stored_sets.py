"""Small data sets on disk for the tests of records and pipeline: records of any kind in several TFRecord files."""

import io
import itertools

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from cbalign.data import text
from cbalign.data.datasets import schema


def jpeg(number, height=24, width=30, **options):
    """A smooth random image of its number, encoded."""
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
    buffer = io.BytesIO()
    small.resize((width, height), Image.BICUBIC).save(buffer, **{"format": "JPEG", "quality": 90, **options})
    return buffer.getvalue()


def record(number, image=None, captions=None):
    """The fields of a record; its captions end with its number in words."""
    captions = [f"image {number} here", f"seen {number}"][: number % 2 + 1] if captions is None else captions
    return {
        "image": jpeg(number) if image is None else image,
        "captions": captions,
        "id": number + 1000,
        "name": f"r{number}",
    }


def question(number, image=None, answers=None):
    """A record of a question; three questions are about one image."""
    answers = [f"{number}"] * 3 + ["here"] if answers is None else answers
    return {
        "image": jpeg(number // 3) if image is None else image,
        "image_id": number // 3,
        "question_id": number + 2**40,
        "question": f"image {number} here",
        "answers": answers,
        "question_type": "what",
        "answer_type": "other",
    }


def pair(number, left=None, right=None):
    """A record of a statement about two images."""
    return {
        "image_left": jpeg(2 * number) if left is None else left,
        "image_right": jpeg(2 * number + 1) if right is None else right,
        "sentence": f"seen {number}",
        "label": number % 2,
        "identifier": f"s{number}",
    }


def hypothesis(number, image=None):
    """A record of a sentence that an image may entail."""
    return {
        "image": jpeg(number) if image is None else image,
        "image_id": f"i{number}",
        "sentence": f"here {number}",
        "label": number % 3,
        "pair_id": f"p{number}",
    }


MAKERS = {"captions": record, "questions": question, "image_pairs": pair, "entailment": hypothesis}
"""Functions number -> fields of a record, by kind."""


def serialized(fields):
    def feature(value):
        if isinstance(value, int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        values = value if isinstance(value, list) else [value]
        data = [item if isinstance(item, bytes) else item.encode() for item in values]
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=data))

    example = tf.train.Features(feature={name: feature(value) for name, value in fields.items()})
    return tf.train.Example(features=example).SerializeToString()


def write(folder, name, splits, *, shards=3, kind="captions"):
    """Writes a data set and returns its folder as a name to open it by.

    Args:
      folder: to make it in.
      name: of the data set.
      splits: split -> records, dictionaries or serialized.
      shards: files per split.
      kind: of record, whose features the data set declares.
    """
    path = folder / name / "1.0.0"
    path.mkdir(parents=True)
    features = tfds.features.FeaturesDict(schema.KINDS[kind].features)
    infos = []
    for split, records in splits.items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=path, dataset_name=name, split=split, filetype_suffix="tfrecord"
        )
        cuts = np.linspace(0, len(records), shards + 1).astype(int).tolist()
        size = 0
        for number, (start, end) in enumerate(itertools.pairwise(cuts)):
            file = path / f"{name}-{split}.tfrecord-{number:05d}-of-{shards:05d}"
            with tf.io.TFRecordWriter(str(file)) as writer:
                for fields in records[start:end]:
                    data = fields if isinstance(fields, bytes) else serialized(fields)
                    size += len(data)
                    writer.write(data)
        lengths = np.diff(cuts).tolist()
        infos.append(tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size, filename_template=template))
    _describe(path, name, features, infos)
    return str(path)


def _describe(path, name, features, infos):
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=name, version=tfds.core.Version("1.0.0"), data_dir=str(path), module_name=__name__
    )
    info = tfds.core.DatasetInfo(builder=identity, description="For tests.", features=features)
    info.set_file_format("tfrecord")
    info.set_splits(tfds.core.splits.SplitDict(infos))
    info.write_to_directory(path)


def tokenizer(folder, numbers=200):
    """A vocabulary in which each number is one token."""
    path = folder / "vocab.txt"
    words = [*text.SPECIAL_TOKENS, "image", "seen", "here", *map(str, range(numbers))]
    path.write_text("".join(f"{word}\n" for word in words))
    return text.load_tokenizer(path)
