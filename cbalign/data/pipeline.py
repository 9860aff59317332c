"""From records to batches: order, captions, decoding, augmentation, batching, prefetch.

The global step is the only clock. The batch of step s is a function of (records, seed, s): sample number k = s N + j
of the run is row j of step s, its record follows from a shuffle keyed by (seed, epoch), and its caption and its views
are drawn from (seed, k). A stream may therefore start at any step, and be cut among any number of processes, without
a change of a single bit.
"""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from cbalign.data import augment, text
from cbalign.errors import UserError

# The accelerators are JAX's: tensorflow would take their memory at the first use.
tf.config.set_visible_devices([], "GPU")

DECODED_LIMIT = 512 << 20
"""Pictures of one size are kept decoded up to this many bytes."""

# Purposes of seeds; a view uses a few numbers above its own.
_ORDER, _CAPTION, _FIRST_VIEW, _SECOND_VIEW = 1, 2, 16, 32


@dataclasses.dataclass(eq=False)
class Records:
    """The pictures of one split and their captions, in memory.

    Attributes:
      images: n encoded pictures (list of bytes), or pictures of one size, uint8 [n, h, w, 3].
      token_ids: int32 [c, L], all captions, those of a picture next to one another.
      caption_offsets: int64 [n + 1]; the captions of picture i are rows caption_offsets[i] to caption_offsets[i + 1].
      captions: the same captions as text, one list a picture.
      ids: int32 [n]; pictures with the same id count as the same.
      names: n names.
    """

    images: list | np.ndarray
    token_ids: np.ndarray
    caption_offsets: np.ndarray
    captions: list
    ids: np.ndarray
    names: list

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def from_split(cls, split: dict, tokenizer, *, max_length: int, max_words: int = 30) -> "Records":
        """Cleans and encodes the captions of a split.

        Args:
          split: {"images", "captions", "ids", "names"} as the sources load it.
          tokenizer: from `text.load_tokenizer`.
          max_length: tokens a caption, [CLS] included.
          max_words: words a caption is cut to beforehand.

        Raises:
          UserError: pictures without a caption, or ids that do not fit 32 bits.
        """
        captions = [list(group) for group in split["captions"]]
        bare = sum(not group for group in captions)
        if bare or not captions:
            raise UserError(f"{bare} of {len(captions)} records have no caption: remove them or caption them")
        ids = np.asarray(split["ids"], np.int64)
        if np.any(ids != ids.astype(np.int32)):
            raise UserError("picture ids do not fit 32 bits: number the pictures from 0")
        flat = [text.clean_caption(caption, max_words=max_words) for group in captions for caption in group]
        offsets = np.cumsum([0] + [len(group) for group in captions], dtype=np.int64)
        token_ids = text.encode(tokenizer, flat, max_length=max_length)
        return cls(split["images"], token_ids, offsets, captions, ids.astype(np.int32), list(split["names"]))

    @functools.cached_property
    def pictures(self) -> tf.Tensor:
        """All pictures: uint8 [n, h, w, 3] when of one size and within `DECODED_LIMIT`, else encoded, string [n]."""
        with tf.device("CPU:0"):
            if isinstance(self.images, np.ndarray):
                return tf.constant(self.images)
            encoded = tf.constant(self.images, tf.string)
            decoded = _decode_all(encoded, self.names)
            return encoded if decoded is None else tf.constant(decoded)


def _decode_all(encoded, names):
    """The pictures as uint8 [n, h, w, 3], or None when they differ in size or take too much memory."""
    count, number, pictures = int(encoded.shape[0]), 0, None
    dataset = tf.data.Dataset.from_tensor_slices(encoded).map(augment.decode, num_parallel_calls=tf.data.AUTOTUNE)
    try:
        for picture in dataset.as_numpy_iterator():
            if pictures is None:
                if count * picture.nbytes > DECODED_LIMIT:
                    return None
                pictures = np.empty((count, *picture.shape), np.uint8)
            if picture.shape != pictures.shape[1:]:
                return None
            pictures[number] = picture
            number += 1
    except tf.errors.InvalidArgumentError as error:
        raise UserError(f"picture {names[number]} cannot be decoded: give PNG, JPEG, GIF or BMP files") from error
    return pictures


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
    process_count: int = 1, image_size: int, scale, flip: bool = True, rand_augment: bool = True,
    second_view: bool = False, prefetch: int = 2, threads: int | None = None, num_ops: int = 2, magnitude: float = 7,
    color=(0.0, 0.0, 0.0),
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
      flip, rand_augment, num_ops, magnitude, color: as in `augment.train_view`.
      second_view: whether to draw a second, independent view.
      prefetch: batches made ahead.
      threads: threads the stream may use; None leaves it to tensorflow.

    Returns:
      An iterator of read-only arrays: "image" uint8 [b, H, W, 3]; "image_teacher" likewise, if `second_view`; "text"
      int32 [b, L]; "id" int32 [b]; "index" int32 [b], the row in the global batch.

    Raises:
      UserError: the batch does not fit the records or the processes.
    """
    per_epoch = steps_per_epoch(len(records), global_batch)
    if global_batch % process_count:
        raise UserError(f"a global batch of {global_batch} does not divide among {process_count} processes")
    local_batch = global_batch // process_count
    view = functools.partial(
        augment.train_view, size=image_size, scale=scale, flip=flip, rand_augment=rand_augment, num_ops=num_ops,
        magnitude=magnitude, color=color,
    )
    # Stateless seeds are told apart by adding multiples of 2^32 to the first number, which has to stay below.
    seed = int(seed) & 0x7FFFFFFF
    with tf.device("CPU:0"):
        columns = _columns(records)

        def batch_of(step):
            row = tf.range(process_index * local_batch, (process_index + 1) * local_batch, dtype=tf.int64)
            order = tf.stack([tf.constant(seed, tf.int64), step // per_epoch])
            position = (step % per_epoch) * global_batch + row
            record = _shuffled(position, order, len(records))
            return {"record": record, "row": tf.cast(row, tf.int32), "sample": step * global_batch + row}

        def sample_of(drawn):
            key = tf.stack([tf.constant(seed, tf.int64), drawn["sample"]])
            record = drawn["record"]
            picture = tf.gather(columns["pictures"], record)
            picture = augment.decode(picture) if picture.dtype == tf.string else picture
            out = {"image": view(picture, augment.derive_seed(key, _FIRST_VIEW))}
            if second_view:
                # One view after the other: side by side the two would wake a second thread for every few operations.
                with tf.control_dependencies([out["image"]]):
                    second = augment.derive_seed(key, _SECOND_VIEW)
                    out["image_teacher"] = view(tf.identity(picture), second)
            out["text"] = tf.gather(columns["token_ids"], _drawn_caption(columns["offsets"], record, key))
            return out | {"id": tf.gather(columns["ids"], record), "index": drawn["row"]}

        dataset = tf.data.Dataset.counter(start_step).map(batch_of).unbatch()
        dataset = dataset.map(sample_of, num_parallel_calls=threads or tf.data.AUTOTUNE)
        dataset = dataset.batch(local_batch, drop_remainder=True).prefetch(prefetch)
        return dataset.with_options(_options(threads)).as_numpy_iterator()


def _columns(records: Records) -> dict:
    return {
        "pictures": records.pictures, "token_ids": tf.constant(records.token_ids, tf.int32),
        "offsets": tf.constant(records.caption_offsets, tf.int64), "ids": tf.constant(records.ids, tf.int32),
    }


def _shuffled(position, order, count: int):
    """The records at int64 positions [b] of the epoch whose key is `order` int64 [2]: a permutation of [0, count)."""
    # The op by itself tells only 256 keys apart when they are counted up, and its default of 4 rounds leaves
    # neighbours correlated; a hashed key and 16 rounds pass tests of uniformity.
    key = tf.random.stateless_uniform([3], augment.derive_seed(order, _ORDER), minval=None, maxval=None, dtype=tf.int32)
    return tf.raw_ops.RandomIndexShuffle(
        index=position, seed=key, max_index=tf.constant(count - 1, tf.int64), rounds=16
    )


def _drawn_caption(offsets, record, key):
    """A row of the token ids, drawn uniformly from the captions of the record."""
    first = tf.gather(offsets, record)
    count = tf.gather(offsets, record + 1) - first
    draw = tf.random.stateless_uniform([], augment.derive_seed(key, _CAPTION), dtype=tf.float64)
    return first + tf.cast(draw * tf.cast(count, tf.float64), tf.int64)


def _options(threads: int | None) -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    options.threading.max_intra_op_parallelism = 1
    if threads:
        options.threading.private_threadpool_size = threads
        options.autotune.enabled = False
    return options


def eval_images(
    records: Records, *, image_size: int, batch_size: int, threads: int | None = None
) -> Iterator[tuple[np.ndarray, int]]:
    """Yields (pictures uint8 [batch_size, image_size, image_size, 3], how many count), in the order of the records.

    The last batch is filled up with its last picture, so that all have one shape.
    """
    count = len(records)
    padded = -(-count // batch_size) * batch_size
    # The generator must not be left while a device scope is open.
    with tf.device("CPU:0"):
        pictures = records.pictures

        def picture_of(number):
            picture = tf.gather(pictures, tf.minimum(number, count - 1))
            return augment.resize(augment.decode(picture) if picture.dtype == tf.string else picture, image_size)

        dataset = tf.data.Dataset.range(padded).map(picture_of, num_parallel_calls=threads or tf.data.AUTOTUNE)
        dataset = dataset.batch(batch_size, drop_remainder=True).prefetch(2).with_options(_options(threads))
        batches = dataset.as_numpy_iterator()
    for start, batch in zip(range(0, padded, batch_size), batches):
        yield batch, min(batch_size, count - start)
