"""TCL's colour distortions of an image (`dataset/__init__.py`): jitter, greyscale and blur, as in torchvision and PIL.

Images are uint8 RGB [h, w, 3] in and out. TCL applies them between crop and flip: ColorJitter(0.4, 0.4, 0.4, 0.1) with
probability 0.8, RandomGrayscale with 0.2, GaussianBlur of 0.1 to 2 pixels with 0.5.
"""

import tensorflow as tf

BRIGHTNESS = CONTRAST = SATURATION = 0.4
HUE = 0.1
BLUR_SIGMA = (0.1, 2.0)
_BLUR_RADIUS = 6
_OPERATIONS = 4


def grey_levels(image):
    """Luma of an image, as in PIL's mode L: int32 [h, w, 1]."""
    weighted = tf.cast(image, tf.int32) * tf.constant([19595, 38470, 7471])
    return tf.bitwise.right_shift(tf.reduce_sum(weighted, axis=-1, keepdims=True) + 0x8000, 16)


def _blend(low, image, factor):
    """Low + factor * (image - low), clipped and truncated as by PIL's Image.blend."""
    low, pixels = tf.cast(low, tf.float32), tf.cast(image, tf.float32)
    return tf.cast(tf.clip_by_value(low + factor * (pixels - low), 0.0, 255.0), tf.uint8)


def adjust_brightness(image, factor):
    """ImageEnhance.Brightness: blends with black."""
    return _blend(tf.zeros([1, 1, 1]), image, factor)


def adjust_contrast(image, factor):
    """ImageEnhance.Contrast: blends with the mean grey level."""
    mean = tf.reduce_mean(tf.cast(grey_levels(image), tf.float32))
    return _blend(tf.floor(mean + 0.5), image, factor)


def adjust_saturation(image, factor):
    """ImageEnhance.Color: blends with the grey image."""
    return _blend(grey_levels(image), image, factor)


def adjust_hue(image, shift):
    """Shifts the hue by the fraction `shift` of a circle in PIL's 8-bit HSV, as torchvision does for PIL images."""
    hue, saturation, value = _rgb_to_hsv(image)
    # torchvision adds a uint8, which truncates fractions and wraps negative shifts around.
    steps = tf.cast(tf.cast(shift * 255.0, tf.int32), tf.float32)
    return _hsv_to_rgb(tf.math.floormod(hue + steps, 256.0), saturation, value)


def _rgb_to_hsv(image):
    """PIL's mode HSV: three float32 [h, w] with integer values from 0 to 255."""
    red, green, blue = tf.unstack(tf.cast(image, tf.float32), axis=-1)
    value = tf.reduce_max(tf.cast(image, tf.float32), axis=-1)
    spread = value - tf.reduce_min(tf.cast(image, tf.float32), axis=-1)
    safe = tf.maximum(spread, 1.0)
    from_red, from_green, from_blue = ((value - channel) / safe for channel in (red, green, blue))
    sixths = tf.where(
        red == value,
        from_blue - from_green,
        tf.where(green == value, 2.0 + from_red - from_blue, 4.0 + from_green - from_red),
    )
    hue = tf.floor(tf.math.floormod(sixths / 6.0 + 1.0, 1.0) * 255.0)
    saturation = tf.floor(spread / tf.maximum(value, 1.0) * 255.0)
    return tf.where(spread > 0, hue, 0.0), tf.where(spread > 0, saturation, 0.0), value


def _hsv_to_rgb(hue, saturation, value):
    """Inverse of `_rgb_to_hsv`, as computed by PIL: uint8 [h, w, 3]."""
    sixths = hue * (6.0 / 255.0)
    sector = tf.floor(sixths)
    fraction, share = sixths - sector, saturation / 255.0
    low = tf.round(value * (1.0 - share))
    falling = tf.round(value * (1.0 - share * fraction))
    rising = tf.round(value * (1.0 - share * (1.0 - fraction)))
    sector = tf.cast(sector, tf.int32) % 6
    red = tf.stack([value, falling, low, low, rising, value])
    green = tf.stack([rising, value, value, falling, low, low])
    blue = tf.stack([low, low, rising, value, value, falling])
    chosen = tf.one_hot(sector, 6, axis=0)
    return tf.cast(tf.stack([tf.reduce_sum(channel * chosen, axis=0) for channel in (red, green, blue)], -1), tf.uint8)


def color_jitter(image, seed):
    """Torchvision's ColorJitter: changes brightness, contrast, saturation and hue by random amounts in random order.

    Args:
      image: uint8 [h, w, 3].
      seed: int64 [2].

    Returns:
      uint8 [h, w, 3].
    """
    draws = tf.random.stateless_uniform([2 * _OPERATIONS], seed, minval=-1.0, maxval=1.0)
    order = tf.argsort(draws[_OPERATIONS:])
    shape = image.shape
    branches = (
        lambda x: adjust_brightness(x, 1.0 + BRIGHTNESS * draws[0]),
        lambda x: adjust_contrast(x, 1.0 + CONTRAST * draws[1]),
        lambda x: adjust_saturation(x, 1.0 + SATURATION * draws[2]),
        lambda x: adjust_hue(x, HUE * draws[3]),
    )
    for place in range(_OPERATIONS):
        current = image
        image = tf.switch_case(order[place], [lambda f=f, x=current: f(x) for f in branches])
        image.set_shape(shape)
    return image


def greyscale(image):
    """The greyscale image with three channels."""
    return tf.cast(tf.repeat(grey_levels(image), 3, axis=-1), tf.uint8)


def gaussian_blur(image, sigma):
    """Gaussian blur with edge padding; `sigma` in pixels. PIL's GaussianBlur approximates it with box filters."""
    offsets = tf.range(-_BLUR_RADIUS, _BLUR_RADIUS + 1, dtype=tf.float32)
    weights = tf.nn.softmax(-0.5 * tf.square(offsets / sigma))
    pad, taps = _BLUR_RADIUS, 2 * _BLUR_RADIUS + 1
    # A clamped gather replaces edge padding, which TensorFlow lacks.
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    rows = tf.clip_by_value(tf.range(-pad, height + pad), 0, height - 1)
    columns = tf.clip_by_value(tf.range(-pad, width + pad), 0, width - 1)
    pixels = tf.cast(tf.gather(tf.gather(image, rows, axis=0), columns, axis=1), tf.float32)
    pixels = tf.transpose(pixels, [2, 0, 1])[..., tf.newaxis]
    pixels = tf.nn.conv2d(pixels, tf.reshape(weights, [taps, 1, 1, 1]), 1, "VALID")
    pixels = tf.nn.conv2d(pixels, tf.reshape(weights, [1, taps, 1, 1]), 1, "VALID")
    blurred = tf.transpose(pixels[..., 0], [1, 2, 0])
    return tf.ensure_shape(tf.cast(tf.clip_by_value(blurred + 0.5, 0.0, 255.0), tf.uint8), image.shape)


def distort_color(image, seed, *, jitter: float = 0.8, grey: float = 0.2, blur: float = 0.5):
    """Applies jitter, greyscale and blur, each with its own probability.

    Args:
      image: uint8 [h, w, 3].
      seed: int64 [2]; a second seed is derived by adding 2^40 to its first element.
      jitter, grey, blur: probabilities; the defaults are TCL's.

    Returns:
      uint8 [h, w, 3].
    """
    draws = tf.random.stateless_uniform([4], seed)
    shape = image.shape
    if jitter:
        plain, own = image, seed + tf.constant([1 << 40, 0], tf.int64)
        image = tf.cond(draws[0] < jitter, lambda: color_jitter(plain, own), lambda: plain)
        image.set_shape(shape)
    if grey:
        coloured = image
        image = tf.cond(draws[1] < grey, lambda: greyscale(coloured), lambda: coloured)
        image.set_shape(shape)
    if blur:
        sharp, (low, high) = image, BLUR_SIGMA
        image = tf.cond(draws[2] < blur, lambda: gaussian_blur(sharp, low + (high - low) * draws[3]), lambda: sharp)
        image.set_shape(shape)
    return image
