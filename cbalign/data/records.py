"""The records of a split, ready to draw batches from: small splits in memory, large ones and mixtures from disk.

From disk, what stays in memory of n images with c captions of L tokens is 24 n + (2 L + 8) c bytes and the captions'
text: for five million pairs of 25 tokens and 60 letters, one image each, 0.7 GB in each process.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import re

import numpy as np
import tensorflow as tf
from etils import epath

from cbalign.data.augment import views
from cbalign.data import split_index
from cbalign.data import text
from cbalign.data.sampling import Part, parse_mixture
from cbalign.data.datasets import catalogue
from cbalign.data.stored import MAX_WORDS, StoredCaptions, StoredFeature, StoredNames, distinct_ids, encoded_captions
from cbalign.errors import UserError

# The accelerators are JAX's: tensorflow would take their memory at the first use.
tf.config.set_visible_devices([], "GPU")

MEMORY_LIMIT = 1 << 30
"""Splits of at most this many bytes are read into memory whole."""
DECODED_LIMIT = 512 << 20
"""Images in memory are kept decoded up to this many bytes."""


@dataclasses.dataclass(eq=False)
class Records:
    """Images and their captions.

    Attributes:
      images: n encoded images (list of bytes, or `StoredFeature`), or images of one size, uint8 [n, h, w, 3].
      token_ids: int32 (from disk int16, if the vocabulary fits) [c, L], all captions, those of an image next to one
        another.
      caption_offsets: int64 [n + 1]; the captions of image i are rows caption_offsets[i] to caption_offsets[i + 1].
      captions: the same captions as text: a sequence of lists, one an image.
      ids: int32 [n]; images with the same id count as the same.
      names: n names.
      wordless: bool [c], captions of which cleaning leaves nothing; None where there are none.
      parts: the sources and what an epoch takes of each; one source, once through, by default.
    """

    images: collections.abc.Sequence | np.ndarray
    token_ids: np.ndarray
    caption_offsets: np.ndarray
    captions: collections.abc.Sequence
    ids: np.ndarray
    names: collections.abc.Sequence
    wordless: np.ndarray | None = None
    parts: tuple[Part, ...] = ()

    def __post_init__(self):
        self.parts = self.parts or (Part(0, len(self), len(self)),)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def epoch_size(self) -> int:
        """Records an epoch takes, repetitions counted."""
        return sum(part.per_epoch for part in self.parts)

    @property
    def stored(self) -> bool:
        """Whether the images are read from disk."""
        return isinstance(self.images, StoredFeature)

    @classmethod
    def from_split(cls, split: dict, tokenizer, *, max_length: int, max_words: int = MAX_WORDS) -> Records:
        """Cleans and encodes the captions of a split in memory.

        Args:
          split: {"images", "captions", "ids", "names"} as the sources load it.
          tokenizer: from `text.load_tokenizer`.
          max_length: tokens a caption, [CLS] included.
          max_words: words a caption is cut to beforehand.

        Raises:
          UserError: no captions at all, or ids that do not fit 32 bits.
        """
        captions = [list(group) for group in split["captions"]]
        if not any(captions):
            raise UserError(f"none of {len(captions)} records has a caption: caption them")
        ids = np.asarray(split["ids"], np.int64)
        if np.any(ids != ids.astype(np.int32)):
            raise UserError("image ids do not fit 32 bits: number the images from 0")
        flat = [text.clean_caption(caption, max_words=max_words) for group in captions for caption in group]
        offsets_ = np.cumsum([0] + [len(group) for group in captions], dtype=np.int64)
        token_ids = text.encode(tokenizer, flat, max_length=max_length)
        wordless = np.array([not caption for caption in flat])
        return cls(
            split["images"], token_ids, offsets_, captions, ids.astype(np.int32), list(split["names"]),
            wordless if wordless.any() else None,
        )

    @functools.cached_property
    def _images(self) -> tuple:
        """Images in memory: one tensor of all; of decoded ones of several sizes, all their pixels in a row, where each
        image begins, int64 [n, 1], and its shape, int64 [n, 3]."""
        with tf.init_scope(), tf.device("CPU:0"):
            if isinstance(self.images, np.ndarray):
                return (tf.constant(self.images),)
            encoded = tf.constant(self.images, tf.string)
            whole = _decode_all(encoded)
            if whole is None:
                return (encoded,)
            shapes = np.array([image.shape for image in whole], np.int64)
            if np.all(shapes == shapes[0]):
                return (tf.constant(np.stack(whole)),)
            sizes = shapes.prod(axis=1)
            starts = (np.cumsum(sizes) - sizes)[:, np.newaxis]
            return tuple(map(tf.constant, (np.concatenate([image.ravel() for image in whole]), starts, shapes)))

    @property
    def decoded(self) -> bool:
        """Whether all images lie decoded in memory: they are whole and take at most `DECODED_LIMIT`."""
        return not self.stored and self._images[0].dtype == tf.uint8

    def read(self, record):
        """The image of a record (int64 scalar), inside a graph: uint8 [h, w, 3], or encoded, a string scalar."""
        if self.stored:
            return self.images.read(record)
        if len(self._images) == 1:
            return tf.gather(self._images[0], record)
        pixels, start, shape = self._images[0], *(tf.gather(column, record) for column in self._images[1:])
        image = tf.reshape(tf.slice(pixels, start, [tf.reduce_prod(shape)]), shape)
        return tf.ensure_shape(image, [None, None, 3])

    @functools.cached_property
    def drawable(self) -> tuple[np.ndarray, np.ndarray | None]:
        """What captions are drawn from: int64 [n + 1] offsets of each record's, and rows of `token_ids` (None: all)."""
        if self.wordless is None:
            return self.caption_offsets, None
        kept = np.cumsum(np.concatenate([[0], ~self.wordless]), dtype=np.int64)
        return kept[self.caption_offsets], np.flatnonzero(~self.wordless)

    @functools.cached_property
    def silent(self) -> int:
        """Number of records without a caption that could be drawn."""
        return int(np.sum(np.diff(self.drawable[0]) == 0))


def _decode_all(encoded) -> list | None:
    """The images, uint8 [h, w, 3] each, or None when one is broken or they take too much memory."""
    images, size = [], 0
    decode = views.as_written(views.decode)
    dataset = tf.data.Dataset.from_tensor_slices(encoded).map(decode, num_parallel_calls=tf.data.AUTOTUNE)
    try:
        for image in dataset.as_numpy_iterator():
            size += image.nbytes
            if size > DECODED_LIMIT:
                return None
            images.append(image)
    except tf.errors.InvalidArgumentError:
        return None
    return images


class LoadedSplit:
    """A split in memory, before there is a vocabulary."""

    def __init__(self, split: dict):
        self._split = split
        self.captions = split["captions"]
        self.epoch_size = len(split["images"])

    def encode(self, tokenizer, *, max_length: int) -> Records:
        """See `Records.from_split`."""
        return Records.from_split(self._split, tokenizer, max_length=max_length)


class StoredSplit:
    """One source on disk or several, before there is a vocabulary.

    Attributes:
      captions: as in `Records`.
      epoch_size: records an epoch takes.
    """

    def __init__(self, sources: list[tuple[split_index.SplitIndex, epath.Path, float]]):
        """Takes the index, the folder and the weight of each source."""
        self._sources = sources
        starts = np.cumsum([0] + [len(index) for index, _, _ in sources]).tolist()
        self._parts = tuple(
            Part.weighted(start, len(index), weight) for start, (index, _, weight) in zip(starts, sources)
        )
        self._index = split_index.join([index for index, _, _ in sources])
        self.captions = StoredCaptions(self._index)
        self.epoch_size = sum(part.per_epoch for part in self._parts)

    def encode(self, tokenizer, *, max_length: int) -> Records:
        """Encodes the captions, or finds them encoded beside the data.

        Raises:
          UserError: there are no captions.
        """
        tokens = [encoded_captions(index, folder, tokenizer, max_length) for index, folder, _ in self._sources]
        token_ids = tokens[0] if len(tokens) == 1 else np.concatenate(tokens)
        if not len(token_ids):
            raise UserError(f"none of {len(self._index)} records has a caption: caption them")
        # Cleaning leaves a caption without words where nothing follows [CLS].
        wordless = token_ids[:, 1] == tokenizer.pad_token_id
        return Records(
            StoredFeature(self._index, "image"), token_ids, self._index.caption_offsets, self.captions,
            distinct_ids([index.ids for index, _, _ in self._sources]), StoredNames(self._index),
            wordless if wordless.any() else None, self._parts,
        )


def open_split(name: str, split: str, data_dir: str | None = None, *, missing: str = "refuse"):
    """Opens a split of a data set, or of a mixture of them.

    Args:
      name: as for `catalogue.prepare`, or a mixture, `A+B*0.5`, see `parse_mixture`.
      split: of each of them, or a slice such as `train[:10%]`.
      data_dir: where built data sets are kept; TFDS's default if None.
      missing: "skip" leaves out the sources of a mixture that have no such split, as long as one has it.

    Returns:
      `LoadedSplit`, for one small source, or `StoredSplit`.

    Raises:
      UserError: a name, the split or a feature is unknown, or a file of a data set is missing or damaged.
    """
    sources = parse_mixture(name)
    builders = [(source, catalogue.prepare(source, data_dir), weight) for source, weight in sources]
    if missing == "skip" and len(builders) > 1:
        base = re.split(r"[\[+]", split)[0].strip()
        builders = [entry for entry in builders if base in entry[1].info.splits] or builders
    for source, builder, _ in builders:
        _check_split(builder, source, split)
    source, builder, weight = builders[0]
    if len(builders) == 1 and weight == 1 and _bytes(builder, split) <= MEMORY_LIMIT:
        return LoadedSplit(catalogue.load_split(source, split, data_dir))
    return StoredSplit([(split_index.load_index(builder, split), epath.Path(builder.data_path), weight)
                        for _, builder, weight in builders])


def _check_split(builder, name: str, split: str) -> None:
    known = list(builder.info.splits)
    if any(part.partition("[")[0].strip() not in known for part in split.split("+")):
        raise UserError(f"{name} has no split {split}: give one of {', '.join(known)}")
    lacking = [feature for feature in ("image", "captions", "id", "name") if feature not in builder.info.features]
    if lacking:
        raise UserError(f"{name} has no {', '.join(lacking)}: it is no data set of images and captions")


def _bytes(builder, split: str) -> float:
    """Size of a split or slice; a slice is taken to be like the whole."""
    chosen = builder.info.splits[split]
    whole = [info for info in builder.info.splits.values()
             if set(info.filenames) & {epath.Path(file.filename).name for file in chosen.file_instructions}]
    return sum(info.num_bytes for info in whole) * chosen.num_examples / sum(info.num_examples for info in whole)
