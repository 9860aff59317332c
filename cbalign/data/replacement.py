"""Replaces bad records, and decodes only the part of an image that is needed.

A record is bad if it cannot be read, has no text, or one of its images cannot be decoded (truncated, empty, no image).
It is replaced by the first good one in a fixed sequence of `PROBES` records of the same source, so that a sample
remains a function of the records and its number.
"""

import os

import tensorflow as tf

from cbalign.data.augment import views
from cbalign.data.sampling import probe

PROBES = 16
"""Records tried before a sample is given up."""

# libjpeg smooths chroma across this many columns, and does not see those beyond the part it decodes.
_MARGIN = 2
# A JPEG without an end marker within this many bytes of its end is decoded whole, to see whether it is truncated.
_TAIL_BYTES = 64
_END_OF_IMAGE = (0xFF, 0xD9)


def first_good(samples: tf.data.Dataset, read, *, parts, marker, threads: int | None) -> tf.data.Dataset:
    """Reads the record of each sample, or the first good replacement.

    Args:
      samples: data set of dictionaries of scalars, including "unit" int64, a record or a pair of one.
      read: sample -> dictionary of tensors; called inside a graph, may raise there.
      parts: the sources, for `sampling.probe`.
      marker: a dictionary like that of `read`, for a sample all of whose probes are bad.
      threads: records read in parallel; None lets TensorFlow choose.

    Returns:
      The data set of what `read` returns, in the order of the samples, with "replaced" and "lost" (the marker), bool.
    """

    @views.as_written
    def probes(sample):
        def attempt(number):
            found = tf.cond(
                number < PROBES, lambda: read({**sample, "unit": probe(sample["unit"], number, parts)}), lambda: marker
            )
            return {**found, "replaced": number > 0, "lost": number == PROBES}

        # Attempts that raise are skipped; the marker never raises, so each sample gives exactly one element.
        return tf.data.Dataset.range(PROBES + 1).map(attempt).ignore_errors().take(1)

    calls = threads or tf.data.AUTOTUNE
    return samples.interleave(
        probes,
        cycle_length=threads or (os.cpu_count() or 1),
        block_length=1,
        num_parallel_calls=calls,
        deterministic=True,
    )


def decode_parts(image, choose_boxes, *, plain_rgb: bool = False):
    """Decodes the smallest part of an image that holds some boxes.

    Args:
      image: uint8 [h, w, 3], or the encoded image, a string scalar.
      choose_boxes: (height, width) int32 scalars -> int32 [v, 4], boxes (top, left, height, width) in the image.
      plain_rgb: as for `views.decode`.

    Returns:
      (uint8 [h', w', 3], int32 [v, 4]): a part of the image that holds all boxes, and the boxes within it.
    """
    if image.dtype != tf.string:
        shape = tf.shape(image)
        return image, choose_boxes(shape[0], shape[1])
    return tf.cond(
        tf.io.is_jpeg(image) & _ends(image) & views.is_plain(image),
        lambda: _decode_jpeg_part(image, choose_boxes),
        lambda: decode_parts(views.decode(image, plain_rgb=plain_rgb), choose_boxes),
    )


def _ends(data):
    """Whether a JPEG string has its end marker: a partial decode does not notice truncation elsewhere."""
    length = tf.strings.length(data)
    tail = tf.io.decode_raw(tf.strings.substr(data, tf.maximum(length - _TAIL_BYTES, 0), _TAIL_BYTES), tf.uint8)
    return tf.reduce_any((tail[:-1] == _END_OF_IMAGE[0]) & (tail[1:] == _END_OF_IMAGE[1]))


def _decode_jpeg_part(data, choose_boxes):
    """`decode_parts` of a JPEG string: decodes only the rows and columns that the boxes span, with identical pixels."""
    shape = tf.io.extract_jpeg_shape(data)
    boxes = choose_boxes(shape[0], shape[1])
    top = tf.reduce_min(boxes[:, 0])
    bottom = tf.reduce_max(boxes[:, 0] + boxes[:, 2])
    left = tf.maximum(tf.reduce_min(boxes[:, 1]) - _MARGIN, 0)
    right = tf.minimum(tf.reduce_max(boxes[:, 1] + boxes[:, 3]) + _MARGIN, shape[1])
    part = tf.image.decode_and_crop_jpeg(
        data, tf.stack([top, left, bottom - top, right - left]), channels=3, dct_method="INTEGER_ACCURATE"
    )
    return part, boxes - tf.stack([top, left, 0, 0])
