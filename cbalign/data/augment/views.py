"""Random views of an image inside TensorFlow graphs: uint8 RGB in and out, computed as in PIL.

Decoding and random numbers come from TensorFlow, pixel arithmetic from `cbalign.data.augment.kernels`. Randomness is
stateless: an operation depends only on its integer seed [2], so a view does not depend on threads, processes or earlier
draws.

The crop is torchvision's RandomResizedCrop. The distortions are ALBEF's RandomAugment (`dataset/randaugment.py`), with
one difference: ALBEF's sharpening wraps around at 255; here values are clipped, as in PIL.
"""

import functools
import math

import numpy as np
import tensorflow as tf

from cbalign.data import image_files
from cbalign.data.augment import kernels
from cbalign.data.augment.color import distort_color
from cbalign.data.seeds import ViewPurpose

CROP_TRIES = 10
MAX_LEVEL = 10

# Disables AutoGraph for functions that a data set maps: none uses Python's `if` or `for` on tensors, and AutoGraph's
# conversion of everything they call takes seconds at every start.
as_written = tf.autograph.experimental.do_not_convert


def decode(data, *, plain_rgb: bool = False):
    """Decodes an image string to uint8 [h, w, 3], the pixels of `image_files.load_rgb`.

    Args:
      data: string scalar; JPEG and PNG are decoded by TensorFlow unless they need more than that.
      plain_rgb: give the pixels of `load_plain` instead.
    """
    # Outside of a graph numpy would cut the zero bytes at the end of a plain string.
    data = tf.convert_to_tensor(data)
    image = tf.cond(
        is_plain(data),
        # TensorFlow's default JPEG transform is fast but less exact: it differs from PIL by one grey level on average.
        lambda: tf.cond(
            tf.io.is_jpeg(data),
            lambda: tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE"),
            lambda: tf.io.decode_image(data, channels=3, expand_animations=False),
        ),
        lambda: tf.numpy_function(functools.partial(_decode_by_pillow, plain_rgb), [data], tf.uint8, stateful=False),
    )
    return tf.ensure_shape(image, [None, None, 3])


def is_plain(data):
    """Whether TensorFlow decodes an image string as is: bool scalar, see `image_files.is_plain`."""
    data = tf.convert_to_tensor(data)
    plain = tf.numpy_function(lambda data: image_files.is_plain(_as_bytes(data)), [data], tf.bool, stateful=False)
    return tf.ensure_shape(plain, [])


def _as_bytes(data) -> bytes:
    # A string scalar is bytes inside a graph, and an array outside.
    return data if isinstance(data, bytes) else data.item()


def _decode_by_pillow(plain_rgb: bool, data) -> np.ndarray:
    try:
        return (image_files.load_plain if plain_rgb else image_files.load_rgb)(_as_bytes(data))
    except image_files.BadImage as error:
        raise ValueError(str(error)) from error  # which tf.data turns into an InvalidArgumentError


def derive_seed(seed, purpose: int):
    """Derives a seed int64 [2] for a purpose; distinct (seed, purpose) give distinct seeds.

    Args:
      seed: int32 or int64 [2]; its first element must lie in [-2^31, 2^31).
      purpose: a number in [0, 2^30).
    """
    return tf.cast(seed, tf.int64) + tf.constant([purpose << 32, 0], tf.int64)


def resize(image, size: int):
    """PIL's antialiased bicubic resize of the whole image to uint8 [size, size, 3], ignoring aspect."""
    return _view(image, size)


def _view(image, size: int, *, flip=False, operations=(), amounts=()):
    """Calls `kernels.view` from a graph; `operations` and `amounts` are vectors."""
    view = tf.numpy_function(
        lambda image, size, flip, *operations: kernels.view(image, int(size), bool(flip), *operations),
        [
            image,
            tf.constant(size, tf.int64),
            tf.convert_to_tensor(flip),
            tf.cast(operations, tf.int32),
            tf.cast(amounts, tf.float32),
        ],
        tf.uint8,
        stateful=False,
    )
    return tf.ensure_shape(view, [size, size, 3])


def random_resized_crop(image, size: int, seed, *, scale, ratio=(3 / 4, 4 / 3)):
    """Torchvision's RandomResizedCrop with bicubic interpolation.

    Draws up to ten boxes of random area and aspect and takes the first that fits; if none fits, it takes the largest
    centred box with an allowed aspect.

    Args:
      image: uint8 [h, w, 3].
      size: side length of the square result.
      seed: int32 or int64 [2].
      scale: (minimum, maximum) fraction of the image's area.
      ratio: (minimum, maximum) width / height of the box before resizing.

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
    """The box (top, left, height, width), int32 scalars, that `random_resized_crop` takes."""
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
    # A draw just below 1, times a large slack, may round up to one position too many.
    corner = tf.where(chosen == CROP_TRIES, slack // 2, tf.minimum(drawn, slack))
    return corner[0], corner[1], part[0], part[1]


def _centred_sides(height, width, ratio):
    """Sides int32 [2] (height, width) of the largest box whose aspect lies within `ratio`."""
    height_f, width_f = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    part_height = tf.minimum(height_f, tf.round(width_f / ratio[0]))
    part_width = tf.minimum(width_f, tf.round(height_f * ratio[1]))
    return tf.cast(tf.stack([part_height, part_width]), tf.int32)


def _operation(number: int, image, amount=0.0):
    applied = tf.numpy_function(
        lambda image, amount: kernels.apply(image, number, float(amount)),
        [image, tf.cast(amount, tf.float32)],
        tf.uint8,
        stateful=False,
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
"""{name: function (image uint8 [h, w, 3], amount float) -> image}; the first three take no amount.

AutoContrast stretches each channel to [0, 255] and Equalize flattens its histogram, as PIL's ImageOps without cut-off.
Brightness multiplies by the amount and Sharpness extrapolates from the smoothed image by it, as PIL's ImageEnhance.
ShearX shifts row y right by amount * y, ShearY shifts column x down by amount * x, TranslateX shifts left and
TranslateY up by the amount in pixels. Rotate turns counter-clockwise by the amount in degrees about (w / 2, h / 2),
with pixel centres at integer coordinates as in OpenCV. Pixels from outside the image are grey (128).
"""


def operation_amounts(magnitude: float) -> dict:
    """{name: (amount at the magnitude, whether its sign is random)} of the operations that take an amount."""
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
    """Bool scalar: whether to flip an image horizontally; captions are not adapted."""
    return tf.random.stateless_uniform([], seed) < probability


def draw_operations(seed, *, num_ops: int = 2, magnitude: float = 7, probability: float = 0.5):
    """RandAugment's random choice for `kernels.view`: (operations int32 [num_ops], amounts float32 [num_ops]).

    Operations are drawn with replacement; each is applied with the given probability.

    Args:
      seed: int32 or int64 [2].
      num_ops: number of operations to draw.
      magnitude: strength from 0 to 10 of the operations that take an amount.
      probability: probability of applying a drawn operation.
    """
    draws = tf.random.stateless_uniform([num_ops, 3], seed)
    strengths = operation_amounts(magnitude)
    amounts, signed = np.array([strengths.get(name, (0.0, False)) for name in OPERATIONS], np.float32).T
    which = tf.cast(draws[:, 0] * len(OPERATIONS), tf.int32)
    # Operation 0, Identity, also represents an operation that is not applied.
    which = tf.where(draws[:, 2] < probability, which, 0)
    sign = tf.where((draws[:, 1] < 0.5) & (tf.gather(signed, which) > 0), -1.0, 1.0)
    return which, sign * tf.gather(amounts, which)


def view_box(height, width, seed, *, scale):
    """The box (top, left, height, width), int32 scalars, that `train_view` crops."""
    return crop_box(height, width, derive_seed(seed, ViewPurpose.CROP), scale=scale)


def finish_view(
    part,
    seed,
    *,
    size: int,
    flip: bool = True,
    rand_augment: bool = True,
    num_ops: int = 2,
    magnitude: float = 7,
    color=(0.0, 0.0, 0.0),
):
    """Turns the crop uint8 [h, w, 3] that `view_box` chose into a view uint8 [size, size, 3]; see `train_view`."""
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
    """A random training view of an image: crop, colour distortions, flip, then RandAugment.

    Args:
      image: uint8 [h, w, 3], or the encoded image as a string scalar.
      seed: int32 or int64 [2]; its first element must lie in [-2^31, 2^31).
      size: side length of the square result.
      scale: (minimum, maximum) fraction of the area that the crop keeps.
      **distortions: arguments of `finish_view`: flip, whether to flip with probability 0.5; rand_augment, whether to
        apply RandAugment, with num_ops and magnitude as in `draw_operations`; color, the probabilities of colour
        jitter, greyscale and blur (TCL: 0.8, 0.2, 0.5).

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
    """Crops the box (top, left, height, width) from an image uint8 [h, w, 3]."""
    top, left, height, width = box
    return tf.slice(image, tf.stack([top, left, 0]), tf.stack([height, width, 3]))
