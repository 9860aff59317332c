"""The images of records: in memory for small splits, else on disk. Nothing is read before it is needed.

Both classes have `read`, for use inside a graph, and `encoded`, for one image outside of it.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from PIL import Image

from cbalign.data.augment import views
from cbalign.data.image_files import to_png
from cbalign.data.split_index import SplitIndex

DECODED_LIMIT = 512 << 20
"""Images in memory are kept decoded up to this many bytes."""

# Over a network every read is a request: there a quarter of a megabyte is read at once.
_REMOTE_BUFFER = 256 << 10
_SCAN_BUFFER = 8 << 20
_BATCH = 1024


class StoredImages:
    """Images on disk, read one record at a time.

    Attributes:
      ids: int64 [n, sides], the number of each image; all different, as contents are not compared.
      decoded: False.
      plain_rgb: see `views.decode`.
    """

    decoded = False

    def __init__(self, index: SplitIndex, features: tuple[str, ...], *, plain_rgb: bool = False):
        self._index, self._features, self.plain_rgb = index, features, plain_rgb

    @functools.cached_property
    def ids(self) -> np.ndarray:
        """See the class."""
        return np.arange(len(self._index) * len(self._features)).reshape(-1, len(self._features))

    @functools.cached_property
    def _tables(self):
        # First needed while a graph is traced, which would own the tensors otherwise.
        with tf.init_scope(), tf.device("CPU:0"):
            return tf.constant(self._index.files), tf.constant(self._index.shard), tf.constant(self._index.offsets)

    def read(self, record) -> list:
        """The encoded images of a record (int64 scalar), inside a graph; an error where its bytes are damaged."""
        files, shard, byte = self._tables
        remote = "://" in self._index.files[0]
        dataset = _records(
            tf.gather(files, tf.gather(shard, record)), tf.gather(byte, record), _REMOTE_BUFFER if remote else 0
        )
        example = dataset.take(1).get_single_element()
        parsed = tf.io.parse_single_example(
            example, {feature: tf.io.FixedLenFeature([], tf.string) for feature in self._features}
        )
        return [parsed[feature] for feature in self._features]

    def encoded(self, record: int, side: int) -> bytes:
        """The encoded image of a record."""
        return self.read(tf.constant(record, tf.int64))[side].numpy()


class MemoryImages:
    """Images in memory, equal ones once, decoded if all can be decoded and fit `DECODED_LIMIT`.

    Attributes:
      ids: int64 [n, sides], the number of each image; equal where the content is.
      decoded: whether all images lie decoded in memory.
      plain_rgb: see `views.decode`.
    """

    def __init__(self, load: Callable[[], list[tuple]] | np.ndarray, *, decode: bool = True, plain_rgb: bool = False):
        """Takes a function that reads n tuples of encoded images, or images of one size, uint8 [n, h, w, 3].

        With `decode=False` encoded images are decoded at every read, as those on disk are.
        """
        self._source, self._decode, self.plain_rgb = load, decode, plain_rgb

    @classmethod
    def of_index(cls, index: SplitIndex, features: tuple[str, ...], *, plain_rgb: bool = False) -> MemoryImages:
        """The images of all records of an index, read at the first use."""
        return cls(lambda: _read_all(index, features), plain_rgb=plain_rgb)

    @functools.cached_property
    def _loaded(self) -> tuple[list | np.ndarray, np.ndarray]:
        """The different images, and int64 [n, sides] which of them each record has."""
        if isinstance(self._source, np.ndarray):
            return self._source, np.arange(len(self._source)).reshape(-1, 1)
        images, place, numbers = [], {}, []
        # First needed while a graph is traced, perhaps.
        with tf.init_scope():
            records = self._source()
        for record in records:
            for image in record:
                # By content: ids identify images within one source only.
                digest = hashlib.blake2b(image, digest_size=16).digest()
                if place.setdefault(digest, len(images)) == len(images):
                    images.append(image)
                numbers.append(place[digest])
        return images, np.array(numbers, np.int64).reshape(-1, len(record))

    @property
    def ids(self) -> np.ndarray:
        """See the class."""
        return self._loaded[1]

    @functools.cached_property
    def _tables(self) -> tuple:
        """The m different images as tensors.

        Returns:
          One tensor, encoded or of pixels; for pixels of several sizes all of them in a row, where each image begins,
          int64 [m, 1], and its shape, int64 [m, 3].
        """
        images = self._loaded[0]
        with tf.init_scope(), tf.device("CPU:0"):
            if isinstance(images, np.ndarray):
                return (tf.constant(images),)
            encoded = tf.constant(images, tf.string)
            whole = _decode_all(encoded, self.plain_rgb) if self._decode else None
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
        """See the class."""
        return self._tables[0].dtype == tf.uint8

    @functools.cached_property
    def _places(self):
        """`ids` as a tensor int64 [n, sides]; None where record i has image i alone."""
        ids = self._loaded[1]
        if ids.shape[1] == 1 and np.array_equal(ids[:, 0], np.arange(len(ids))):
            return None
        with tf.init_scope(), tf.device("CPU:0"):
            return tf.constant(ids)

    def read(self, record) -> list:
        """The images of a record (int64 scalar), inside a graph: uint8 [h, w, 3], or encoded, string scalars."""
        if self._places is None:
            return [self._image(record)]
        return [self._image(place) for place in tf.unstack(tf.gather(self._places, record))]

    def _image(self, number):
        if len(self._tables) == 1:
            return tf.gather(self._tables[0], number)
        pixels, start, shape = self._tables[0], *(tf.gather(column, number) for column in self._tables[1:])
        image = tf.reshape(tf.slice(pixels, start, [tf.reduce_prod(shape)]), shape)
        return tf.ensure_shape(image, [None, None, 3])

    def encoded(self, record: int, side: int) -> bytes:
        """The encoded image of a record; one given as pixels is encoded as PNG."""
        images, ids = self._loaded
        image = images[ids[record, side]]
        return image if isinstance(image, bytes) else to_png(Image.fromarray(image))


def _records(file, byte, buffer_size: int) -> tf.data.Dataset:
    """The records of a TFRecord file from a byte on; both may be tensors."""
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=[file], compression_type="", buffer_size=buffer_size, byte_offsets=[byte]
    )
    return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))


def _read_all(index: SplitIndex, features: tuple[str, ...]) -> list[tuple]:
    """The encoded images of all records, in order; b"" for those of damaged records."""
    # Consecutive records with the same shard number are consecutive in the file, see `split_index.join`.
    starts = np.flatnonzero(np.diff(index.shard, prepend=-1))
    images = []
    with tf.device("CPU:0"):
        for start, end in zip(starts, [*starts[1:], len(index)]):
            part = index.part(int(start), int(end))
            try:
                images += _read_shard(part, features)
            except (tf.errors.DataLossError, tf.errors.InvalidArgumentError):
                images += _read_each(part, features)
    return images


def _read_shard(index: SplitIndex, features: tuple[str, ...]) -> list[tuple]:
    """The same for consecutive records of one file."""
    parsed = {feature: tf.io.FixedLenFeature([], tf.string, default_value="") for feature in features}
    # Inside `flat_map`, since a dataset made from a variant cannot be iterated eagerly.
    start = tf.data.Dataset.from_tensors((index.files[index.shard[0]], index.offsets[0]))
    dataset = start.flat_map(views.as_written(lambda file, byte: _records(file, byte, _SCAN_BUFFER)))
    dataset = dataset.take(len(index)).batch(_BATCH)
    dataset = dataset.map(views.as_written(lambda data: tf.io.parse_example(data, parsed))).prefetch(1)
    return [
        record
        for batch in dataset.as_numpy_iterator()
        for record in zip(*(batch[feature].tolist() for feature in features))
    ]


def _read_each(index: SplitIndex, features: tuple[str, ...]) -> list[tuple]:
    """The same, one record at a time, skipping damaged ones."""
    stored, images = StoredImages(index, features), []
    for record in range(len(index)):
        try:
            images.append(tuple(image.numpy() for image in stored.read(tf.constant(record, tf.int64))))
        except (tf.errors.DataLossError, tf.errors.InvalidArgumentError):
            images.append((b"",) * len(features))
    return images


def _decode_all(encoded, plain_rgb: bool) -> list | None:
    """The images, uint8 [h, w, 3] each, or None when one is broken or they take too much memory."""
    images, size = [], 0
    decode = views.as_written(functools.partial(views.decode, plain_rgb=plain_rgb))
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
