"""Image operations on one picture, as TensorFlow graph operations: uint8 RGB in and out, as PIL computes them.

All randomness is stateless: an operation draws from the integer seed [2] it is given and from nothing else, so a
picture's view does not depend on threads, processes or what was drawn before.

The crop is torchvision's RandomResizedCrop and the distortions are ALBEF's RandomAugment (`dataset/randaugment.py`),
with one departure: its sharpening wraps around at 255, here the value is clipped, as PIL does.
"""

import math

import tensorflow as tf

from cbalign.data.color import distort_color

CROP_TRIES = 10
FILL = 128.0
MAX_LEVEL = 10

_CROP, _FLIP, _DISTORT, _COLOR = 1, 2, 3, 4


def decode(data):
    """Returns the picture uint8 [h, w, 3] in a PNG, JPEG, GIF (its first frame) or BMP string; transparency is lost."""
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
    """Returns uint8 [size, size, 3]: PIL's antialiased bicubic resize of the whole picture, aspect not kept."""
    shape = tf.shape(image)[:2] if None in image.shape[:2] else tf.constant(image.shape[:2].as_list())
    return _resize(image, shape, size)


def _resize(image, height_width, size: int):
    resized = tf.raw_ops.ScaleAndTranslate(
        images=image[tf.newaxis], size=tf.constant([size, size]), scale=float(size) / tf.cast(height_width, tf.float32),
        translation=tf.zeros([2]), kernel_type="keyscubic", antialias=True,
    )[0]
    return _to_uint8(tf.ensure_shape(resized, [size, size, 3]) + 0.5)


def _to_uint8(image):
    """Clips to [0, 255] and drops the fraction, as PIL's C code does; add 0.5 before to round."""
    return tf.cast(tf.clip_by_value(image, 0.0, 255.0), tf.uint8)


def random_resized_crop(image, size: int, seed, *, scale, ratio=(3 / 4, 4 / 3)):
    """Returns a random part of the picture, resized: torchvision's RandomResizedCrop with bicubic interpolation.

    Up to ten times a part of random area and aspect is drawn and the first that fits is taken; if none fits, the
    largest centred part of an allowed aspect.

    Args:
      image: uint8 [h, w, 3].
      size: the side of the square result.
      seed: int32 or int64 [2].
      scale: (least, greatest) share of the picture's area.
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
    return _resize(crop(image, box), tf.stack(box[2:]), size)


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


def horizontal_flip(image, seed, probability: float):
    """Returns the picture mirrored left to right with the given probability; captions are not changed to suit."""
    return tf.cond(tf.random.stateless_uniform([], seed) < probability, lambda: image[:, ::-1], lambda: image)


def auto_contrast(image, _=None):
    """Stretches each channel to [0, 255], as PIL's ImageOps.autocontrast with no cut-off."""
    flat = tf.cast(tf.reshape(image, [-1, 3]), tf.float64)
    low, high = tf.reduce_min(flat, axis=0), tf.reduce_max(flat, axis=0)
    scale = 255.0 / tf.maximum(high - low, 1.0)
    grey = tf.range(256, dtype=tf.float64)[tf.newaxis]
    tables = tf.clip_by_value(grey * scale[:, tf.newaxis] - (low * scale)[:, tf.newaxis], 0.0, 255.0)
    tables = tf.where((high > low)[:, tf.newaxis], tables, grey)
    return _look_up(image, tf.cast(tables, tf.uint8))


def equalize(image, _=None):
    """Flattens each channel's histogram, as PIL's ImageOps.equalize."""
    values = tf.cast(image, tf.int32) + tf.constant([0, 256, 512])
    histogram = tf.reshape(tf.math.bincount(tf.reshape(values, [-1]), minlength=768, maxlength=768), [3, 256])
    grey = tf.range(256)[tf.newaxis]
    last = tf.reduce_max(tf.where(histogram > 0, grey, 0), axis=1)
    step = (tf.reduce_sum(histogram, axis=1) - tf.gather(histogram, last, batch_dims=1)) // 255
    step = step[:, tf.newaxis]
    tables = (tf.cumsum(histogram, axis=1, exclusive=True) + step // 2) // tf.maximum(step, 1)
    tables = tf.where(step > 0, tf.minimum(tables, 255), grey)
    return _look_up(image, tf.cast(tables, tf.uint8))


def _look_up(image, tables):
    """Replaces the values of each channel by the channel's table; tables uint8 [3, 256]."""
    return tf.gather(tf.reshape(tables, [-1]), tf.cast(image, tf.int32) + tf.constant([0, 256, 512]))


def brightness(image, factor):
    """Multiplies by `factor`, as PIL's ImageEnhance.Brightness."""
    return _to_uint8(tf.cast(image, tf.float32) * factor)


def sharpness(image, factor):
    """Moves away from the smoothed picture by `factor`, as PIL's ImageEnhance.Sharpness; the border stays."""
    pixels = tf.cast(image, tf.float32)
    rows = pixels[:-2] + pixels[1:-1] + pixels[2:]
    inner = pixels[1:-1, 1:-1]
    smooth = tf.floor((rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4.0 * inner) / 13.0 + 0.5)
    change = (factor - 1.0) * (inner - smooth)
    return _to_uint8(pixels + tf.pad(change, [[1, 1], [1, 1], [0, 0]]))


def shear_x(image, factor):
    """Shifts row y to the right by `factor` * y; what comes from outside is grey."""
    return _warp(image, [1.0, -factor, 0.0, 0.0, 1.0, 0.0])


def shear_y(image, factor):
    """Shifts column x down by `factor` * x."""
    return _warp(image, [1.0, 0.0, 0.0, -factor, 1.0, 0.0])


def translate_x(image, pixels):
    """Shifts to the left by `pixels`."""
    return _warp(image, [1.0, 0.0, pixels, 0.0, 1.0, 0.0])


def translate_y(image, pixels):
    """Shifts up by `pixels`."""
    return _warp(image, [1.0, 0.0, 0.0, 0.0, 1.0, pixels])


def rotate(image, degrees):
    """Rotates counter-clockwise about (w / 2, h / 2), pixel centres lying at whole numbers, as OpenCV does."""
    shape = tf.shape(image)
    y, x = tf.cast(shape[0], tf.float32) / 2.0, tf.cast(shape[1], tf.float32) / 2.0
    angle = degrees * (math.pi / 180.0)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    return _warp(image, [cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y])


def _warp(image, matrix):
    """Reads the result at (x, y) from (m0 x + m1 y + m2, m3 x + m4 y + m5), bilinear, grey outside."""
    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image, tf.float32)[tf.newaxis], transforms=tf.stack([[*matrix, 0.0, 0.0]]),
        output_shape=tf.shape(image)[:2], fill_value=FILL, interpolation="BILINEAR", fill_mode="CONSTANT",
    )[0]
    return _to_uint8(tf.ensure_shape(warped, image.shape) + 0.5)


OPERATIONS = {
    "Identity": lambda image, _=None: image,
    "AutoContrast": auto_contrast,
    "Equalize": equalize,
    "Brightness": brightness,
    "Sharpness": sharpness,
    "ShearX": shear_x,
    "ShearY": shear_y,
    "TranslateX": translate_x,
    "TranslateY": translate_y,
    "Rotate": rotate,
}
"""Name → function (image uint8 [h, w, 3], amount float) → image. The first three take no amount."""


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


def rand_augment(image, seed, *, num_ops: int = 2, magnitude: float = 7, probability: float = 0.5):
    """Applies `num_ops` operations drawn with replacement, each with the given probability.

    Args:
      image: uint8 [h, w, 3], at least 3 pixels high and wide.
      seed: int32 or int64 [2].
      num_ops: how many are drawn.
      magnitude: 0 to 10, the strength of those that have one.
      probability: of a drawn operation being applied.

    Returns:
      uint8 [h, w, 3].
    """
    draws = tf.random.stateless_uniform([num_ops, 3], seed)
    amounts = operation_amounts(magnitude)

    def branch(name, image, sign):
        amount, signed = amounts.get(name, (0.0, False))
        return lambda: OPERATIONS[name](image, sign * amount if signed else amount)

    for number in range(num_ops):
        which = tf.cast(draws[number, 0] * len(OPERATIONS), tf.int32)
        sign = tf.where(draws[number, 1] < 0.5, -1.0, 1.0)
        # The first operation, Identity, also stands for one that is not applied.
        which = tf.where(draws[number, 2] < probability, which, 0)
        shape = image.shape
        image = tf.switch_case(which, [branch(name, image, sign) for name in OPERATIONS])
        image.set_shape(shape)
    return image


# `train_view` has an argument of the function's name.
_rand_augment = rand_augment


def view_box(height, width, seed, *, scale):
    """Returns (top, left, height, width), int32 scalars, of the part of a picture that `train_view` shows."""
    return crop_box(height, width, derive_seed(seed, _CROP), scale=scale)


def finish_view(part, seed, *, size: int, flip: bool = True, rand_augment: bool = True, num_ops: int = 2,
                magnitude: float = 7, color=(0.0, 0.0, 0.0)):
    """Returns the view uint8 [size, size, 3] of a part uint8 [h, w, 3] that `view_box` chose; see `train_view`."""
    view = resize(part, size)
    if any(color):
        jitter, grey, blur = color
        view = distort_color(view, derive_seed(seed, _COLOR), jitter=jitter, grey=grey, blur=blur)
    if flip:
        view = horizontal_flip(view, derive_seed(seed, _FLIP), 0.5)
    if rand_augment:
        view = _rand_augment(view, derive_seed(seed, _DISTORT), num_ops=num_ops, magnitude=magnitude)
    return view


def train_view(image, seed, *, size: int, scale, **distortions):
    """Returns one random training view of a picture: crop, then colours, then flip, then RandAugment.

    Args:
      image: uint8 [h, w, 3], or the encoded picture, a string scalar.
      seed: int32 or int64 [2]; its first number below 2^31 in size.
      size: the side of the square result.
      scale: (least, greatest) share of the area the crop keeps.
      **distortions: of `finish_view`: flip, whether to mirror one picture in two; rand_augment, whether to distort,
        num_ops and magnitude as in `rand_augment`; color, the probabilities of colour jitter, greyscale and blur (TCL:
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
    """Returns the part (top, left, height, width) of a picture uint8 [h, w, 3]."""
    top, left, height, width = box
    return tf.slice(image, tf.stack([top, left, 0]), tf.stack([height, width, 3]))
