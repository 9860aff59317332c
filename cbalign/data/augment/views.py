"""Image operations on one image within TensorFlow's graphs: uint8 RGB in and out, as PIL computes them.

Decoding and drawing at random are TensorFlow's; the arithmetic on pixels is that of `cbalign.data.augment.kernels`. All
randomness is stateless: an operation draws from the integer seed [2] it is given and from nothing else, so an image's
view does not depend on threads, processes or what was drawn before.

The crop is torchvision's RandomResizedCrop and the distortions are ALBEF's RandomAugment (`dataset/randaugment.py`),
with one departure: its sharpening wraps around at 255, here the value is clipped, as PIL does.
"""

import functools
import math

import numpy as np
import tensorflow as tf

from cbalign.data.augment import kernels
from cbalign.data.augment.color import distort_color
from cbalign.data.seeds import ViewPurpose

CROP_TRIES = 10
MAX_LEVEL = 10

# For functions of tensors that a data set maps: none has Python's `if` or `for` on tensors, and AutoGraph, which looks
# for them in everything called, takes seconds at every start.
as_written = tf.autograph.experimental.do_not_convert


def decode(data):
    """Returns the image uint8 [h, w, 3] in a PNG, JPEG, GIF (its first frame) or BMP string; transparency is lost."""
    # Left to itself tensorflow decodes JPEG with the fast, less exact transform: one grey level off PIL on average.
    image = tf.cond(
        tf.io.is_jpeg(data),
        lambda: tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(data, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, [None, None, 3])


def derive_seed(seed, purpose: int):
    """Returns a seed int64 [2] of its own for each small `purpose`; distinct (seed, purpose) stay distinct.

    Args:
      seed: int32 or int64 [2], of which the first lies in [-2^31, 2^31).
      purpose: a number in [0, 2^30).
    """
    return tf.cast(seed, tf.int64) + tf.constant([purpose << 32, 0], tf.int64)


def resize(image, size: int):
    """Returns uint8 [size, size, 3]: PIL's antialiased bicubic resize of the whole image, aspect not kept."""
    return _view(image, size)


def _view(image, size: int, *, flip=False, operations=(), amounts=()):
    """`kernels.view` in a graph; `operations` and `amounts` are vectors."""
    view = tf.numpy_function(
        lambda image, size, flip, *operations: kernels.view(image, int(size), bool(flip), *operations),
        [image, tf.constant(size, tf.int64), tf.convert_to_tensor(flip), tf.cast(operations, tf.int32),
         tf.cast(amounts, tf.float32)],
        tf.uint8, stateful=False,
    )
    return tf.ensure_shape(view, [size, size, 3])


def random_resized_crop(image, size: int, seed, *, scale, ratio=(3 / 4, 4 / 3)):
    """Returns a random part of the image, resized: torchvision's RandomResizedCrop with bicubic interpolation.

    Up to ten times a part of random area and aspect is drawn and the first that fits is taken; if none fits, the
    largest centred part of an allowed aspect.

    Args:
      image: uint8 [h, w, 3].
      size: the side of the square result.
      seed: int32 or int64 [2].
      scale: (least, greatest) share of the image's area.
      ratio: (least, greatest) width / height of the part, before resizing.

    Returns:
      uint8 [size, size, 3].
    """
    if None in image.shape[:2]:
        shape = tf.shape(image)
        height, width = shape[0], shape[1]
    else:
        height, width = image.shape[:2]
    box = crop_box(height, width, seed, scale=scale, ratio=ratio)
    return resize(crop(image, box), size)


def crop_box(height, width, seed, *, scale, ratio=(3 / 4, 4 / 3)):
    """Returns (top, left, height, width), int32 scalars, of the part that `random_resized_crop` takes."""
    low, high = math.log(ratio[0]), math.log(ratio[1])
    draws = tf.random.stateless_uniform([2 * CROP_TRIES + 2], seed)
    area = tf.cast(height * width, tf.float32) * (scale[0] + (scale[1] - scale[0]) * draws[:CROP_TRIES])
    root_aspect = tf.exp(0.5 * (low + (high - low) * draws[CROP_TRIES : 2 * CROP_TRIES]))
    root_area = tf.sqrt(area)
    sides = tf.cast(tf.round(tf.stack([root_area / root_aspect, root_area * root_aspect])), tf.int32)
    sides = tf.concat([sides, _centred_sides(height, width, ratio)[:, tf.newaxis]], axis=1)
    fits = (sides[0] > 0) & (sides[0] <= height) & (sides[1] > 0) & (sides[1] <= width)
    chosen = tf.argmax(fits, output_type=tf.int32)
    part = sides[:, chosen]
    slack = tf.stack([height, width]) - part
    drawn = tf.cast(draws[2 * CROP_TRIES :] * tf.cast(slack + 1, tf.float32), tf.int32)
    # A draw just below 1 times a large slack may round up to one place too many.
    corner = tf.where(chosen == CROP_TRIES, slack // 2, tf.minimum(drawn, slack))
    return corner[0], corner[1], part[0], part[1]


def _centred_sides(height, width, ratio):
    """The sides int32 [2] (height, width) of the largest part whose aspect lies within `ratio`."""
    height_f, width_f = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    part_height = tf.minimum(height_f, tf.round(width_f / ratio[0]))
    part_width = tf.minimum(width_f, tf.round(height_f * ratio[1]))
    return tf.cast(tf.stack([part_height, part_width]), tf.int32)


def _operation(number: int, image, amount=0.0):
    applied = tf.numpy_function(
        lambda image, amount: kernels.apply(image, number, float(amount)), [image, tf.cast(amount, tf.float32)],
        tf.uint8, stateful=False,
    )
    return tf.ensure_shape(applied, image.shape)


_NUMBERS = {
    "Identity": kernels.IDENTITY,
    "AutoContrast": kernels.AUTO_CONTRAST,
    "Equalize": kernels.EQUALIZE,
    "Brightness": kernels.BRIGHTNESS,
    "Sharpness": kernels.SHARPNESS,
    "ShearX": kernels.SHEAR_X,
    "ShearY": kernels.SHEAR_Y,
    "TranslateX": kernels.TRANSLATE_X,
    "TranslateY": kernels.TRANSLATE_Y,
    "Rotate": kernels.ROTATE,
}

OPERATIONS = {name: functools.partial(_operation, number) for name, number in _NUMBERS.items()}
"""Name → function (image uint8 [h, w, 3], amount float) → image; the first three take no amount.

AutoContrast stretches each channel to [0, 255] and Equalize flattens its histogram, as PIL's ImageOps without cut-off;
Brightness multiplies by the amount and Sharpness moves away from the smoothed image by it, as PIL's ImageEnhance.
ShearX shifts row y to the right by amount * y, ShearY column x down by amount * x, TranslateX to the left and TranslateY
up by the amount in pixels; Rotate turns by degrees counter-clockwise about (w / 2, h / 2), pixel centres lying at whole
numbers, as OpenCV does. What comes from outside is grey (128).
"""


def operation_amounts(magnitude: float) -> dict:
    """Returns name → (amount at the magnitude, whether its sign is drawn) of the operations that take an amount."""
    level = magnitude / MAX_LEVEL
    return {
        "Brightness": (level * 1.8 + 0.1, False),
        "Sharpness": (level * 1.8 + 0.1, False),
        "ShearX": (level * 0.3, True),
        "ShearY": (level * 0.3, True),
        "TranslateX": (level * 10.0, True),
        "TranslateY": (level * 10.0, True),
        "Rotate": (level * 30.0, True),
    }


def draw_flip(seed, probability: float = 0.5):
    """Returns a bool scalar: whether to mirror an image left to right; captions are not changed to suit."""
    return tf.random.stateless_uniform([], seed) < probability


def draw_operations(seed, *, num_ops: int = 2, magnitude: float = 7, probability: float = 0.5):
    """Returns RandAugment's choice: (operations int32 [num_ops], amounts float32 [num_ops]), for `kernels.view`.

    Operations are drawn with replacement; each is applied with the given probability.

    Args:
      seed: int32 or int64 [2].
      num_ops: how many are drawn.
      magnitude: 0 to 10, the strength of those that have one.
      probability: of a drawn operation being applied.
    """
    draws = tf.random.stateless_uniform([num_ops, 3], seed)
    strengths = operation_amounts(magnitude)
    amounts, signed = np.array([strengths.get(name, (0.0, False)) for name in OPERATIONS], np.float32).T
    which = tf.cast(draws[:, 0] * len(OPERATIONS), tf.int32)
    # The first operation, Identity, also stands for one that is not applied.
    which = tf.where(draws[:, 2] < probability, which, 0)
    sign = tf.where((draws[:, 1] < 0.5) & (tf.gather(signed, which) > 0), -1.0, 1.0)
    return which, sign * tf.gather(amounts, which)


def view_box(height, width, seed, *, scale):
    """Returns (top, left, height, width), int32 scalars, of the part of an image that `train_view` shows."""
    return crop_box(height, width, derive_seed(seed, ViewPurpose.CROP), scale=scale)


def finish_view(part, seed, *, size: int, flip: bool = True, rand_augment: bool = True, num_ops: int = 2,
                magnitude: float = 7, color=(0.0, 0.0, 0.0)):
    """Returns the view uint8 [size, size, 3] of a part uint8 [h, w, 3] that `view_box` chose; see `train_view`."""
    if any(color):
        jitter, grey, blur = color
        color_seed = derive_seed(seed, ViewPurpose.COLOR)
        part = distort_color(resize(part, size), color_seed, jitter=jitter, grey=grey, blur=blur)
    flipped = draw_flip(derive_seed(seed, ViewPurpose.FLIP)) if flip else False
    operations, amounts = (), ()
    if rand_augment:
        distort_seed = derive_seed(seed, ViewPurpose.DISTORT)
        operations, amounts = draw_operations(distort_seed, num_ops=num_ops, magnitude=magnitude)
    return _view(part, size, flip=flipped, operations=operations, amounts=amounts)


def train_view(image, seed, *, size: int, scale, **distortions):
    """Returns one random training view of an image: crop, then colours, then flip, then RandAugment.

    Args:
      image: uint8 [h, w, 3], or the encoded image, a string scalar.
      seed: int32 or int64 [2]; its first number below 2^31 in size.
      size: the side of the square result.
      scale: (least, greatest) share of the area the crop keeps.
      **distortions: of `finish_view`: flip, whether to mirror one image in two; rand_augment, whether to distort,
        num_ops and magnitude as in `draw_operations`; color, the probabilities of colour jitter, greyscale and blur (TCL:
        0.8, 0.2, 0.5).

    Returns:
      uint8 [size, size, 3].
    """
    if image.dtype == tf.string:
        image = decode(image)
    height, width = image.shape[:2]
    if None in (height, width):
        height, width = tf.unstack(tf.shape(image)[:2])
    part = crop(image, view_box(height, width, seed, scale=scale))
    return finish_view(part, seed, size=size, **distortions)


def crop(image, box):
    """Returns the part (top, left, height, width) of an image uint8 [h, w, 3]."""
    top, left, height, width = box
    return tf.slice(image, tf.stack([top, left, 0]), tf.stack([height, width, 3]))
