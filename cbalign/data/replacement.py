"""Reading one image at a time from records of which some are broken; only the part that is needed is decoded.

A record is bad that cannot be read, that has no caption, or whose image cannot be decoded (cut off, empty, none).
Another one of the same source takes its place, the first good one of a fixed row of `PROBES`: what a sample is stays a
function of the records and its number.
"""

import os

import tensorflow as tf

from cbalign.data.augment import views
from cbalign.data.sampling import probe

PROBES = 16
"""Records looked at before a sample is given up."""

# libjpeg smooths colour across this many columns, of which it knows nothing beyond the part it decodes.
_MARGIN = 2
# A JPEG whose end marker does not lie within so many bytes of its end is decoded whole, to see whether it is cut off.
_TAIL_BYTES = 64
_END_OF_IMAGE = (0xFF, 0xD9)


def first_good(samples: tf.data.Dataset, read, *, parts, marker, threads: int | None) -> tf.data.Dataset:
    """Reads the record of each sample, or the first good one in its place.

    Args:
      samples: of dictionaries of scalars, "record" int64 among them.
      read: sample → dictionary of tensors; called inside a graph, may raise there.
      parts: the sources, for `order.probe`.
      marker: a dictionary like that of `read`, for a sample of which all probes are bad.
      threads: records read at a time; None leaves it to tensorflow.

    Returns:
      The dataset of what `read` returns, in the order of the samples, with "replaced" and "lost" (the marker), bool.
    """

    @views.as_written
    def probes(sample):
        def attempt(number):
            found = tf.cond(
                number < PROBES,
                lambda: read({**sample, "record": probe(sample["record"], number, parts)}),
                lambda: marker,
            )
            return {**found, "replaced": number > 0, "lost": number == PROBES}

        # What raises is skipped; the marker never does, so that each sample gives exactly one element.
        return tf.data.Dataset.range(PROBES + 1).map(attempt).ignore_errors().take(1)

    calls = threads or tf.data.AUTOTUNE
    return samples.interleave(
        probes, cycle_length=threads or (os.cpu_count() or 1), block_length=1, num_parallel_calls=calls,
        deterministic=True,
    )




def decode_parts(image, choose_boxes):
    """Decodes what some parts of an image need.

    Args:
      image: uint8 [h, w, 3], or encoded, a string scalar.
      choose_boxes: (height, width) int32 scalars → int32 [v, 4], parts (top, left, height, width) of the image.

    Returns:
      (uint8 [h', w', 3], int32 [v, 4]): a part of the image that holds them all, and where in it they lie.
    """
    if image.dtype != tf.string:
        shape = tf.shape(image)
        return image, choose_boxes(shape[0], shape[1])
    return tf.cond(
        tf.io.is_jpeg(image) & _ends(image), lambda: _decode_jpeg_part(image, choose_boxes),
        lambda: decode_parts(views.decode(image), choose_boxes),
    )


def _ends(data):
    """Whether a JPEG string has its end marker where it should be, so that reading a part can be trusted."""
    length = tf.strings.length(data)
    tail = tf.io.decode_raw(tf.strings.substr(data, tf.maximum(length - _TAIL_BYTES, 0), _TAIL_BYTES), tf.uint8)
    return tf.reduce_any((tail[:-1] == _END_OF_IMAGE[0]) & (tail[1:] == _END_OF_IMAGE[1]))


def _decode_jpeg_part(data, choose_boxes):
    """`decode_parts` of a JPEG string: decodes the rows and columns that the parts span, to the same bits as all."""
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
