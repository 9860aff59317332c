"""The pixel arithmetic of `cbalign.data.augment.views`, compiled with numba: uint8 RGB arrays in and out.

TensorFlow's own resize, warps and table look-ups take 1.5 to 7 times as long as PIL's. These kernels release Python's
global lock, so that tf.data's threads run in parallel, and one call computes a complete view.
"""

import math

import numba
import numpy as np

FILL = 128
"""Grey level of pixels that a warp reads from outside the image."""

IDENTITY, AUTO_CONTRAST, EQUALIZE, BRIGHTNESS, SHARPNESS, SHEAR_X, SHEAR_Y, TRANSLATE_X, TRANSLATE_Y, ROTATE = range(10)

# Number of rows resized together: one SIMD vector of float32.
_LANES = 8

_compiled = numba.njit(nogil=True, cache=True)
# Allows reordering of sums, which vectorisation requires.
_vectorised = numba.njit(nogil=True, cache=True, fastmath=True)


@_compiled
def view(image, size, flip, operations, amounts):
    """Resizes, flips and distorts an image.

    Args:
      image: uint8 [h, w, 3].
      size: side length of the result.
      flip: whether to flip horizontally.
      operations: int32 [n], operations by the numbers above, applied in this order.
      amounts: float32 [n], their strengths.

    Returns:
      uint8 [size, size, 3].
    """
    out = resize(image, size)
    if flip:
        out = out[:, ::-1].copy()
    for i in range(len(operations)):
        out = apply(out, operations[i], amounts[i])
    return out


@_compiled
def _cubic(x):
    # Keys' cubic convolution kernel with a = -0.5, as in PIL.
    x = abs(x)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    if x < 2.0:
        return ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return 0.0


@_compiled
def _taps(length, size):
    """Filter taps for resizing `length` pixels to `size`: (first pixel int64 [size], weights float32 [size, taps])."""
    scale = length / size
    stretch = max(scale, 1.0)  # antialiasing: when shrinking, the kernel widens with the scale
    support = 2.0 * stretch
    first, weights = np.zeros(size, np.int64), np.zeros((size, int(2.0 * support) + 2), np.float32)
    for i in range(size):
        centre = (i + 0.5) * scale
        low = max(int(centre - support + 0.5), 0)
        high = min(int(centre + support + 0.5), length)
        total = 0.0
        for k in range(high - low):
            total += _cubic((low + k - centre + 0.5) / stretch)
        for k in range(high - low):
            weights[i, k] = _cubic((low + k - centre + 0.5) / stretch) / total
        first[i] = low
    return first, weights


@_vectorised
def _mix_rows(rows, first, weights, out):
    """Out = sum_k weights[k] * rows[first + k], for complete rows."""
    out[:] = np.float32(0.0)
    for k in range(len(weights)):
        weight = weights[k]
        if weight != np.float32(0.0):
            row = rows[first + k]
            for j in range(len(row)):
                out[j] += weight * np.float32(row[j])


@_vectorised
def _mix_columns(columns, first, weights, out):
    """out[c] = 0.5 + sum_k weights[k] * columns[first + k, c], for _LANES rows; columns float32 [n, 3, _LANES]."""
    out[:] = np.float32(0.5)
    for k in range(len(weights)):
        weight, column = weights[k], columns[first + k]
        for c in range(3):
            for lane in range(_LANES):
                out[c, lane] += weight * column[c, lane]


@_compiled
def resize(image, size):
    """PIL's antialiased bicubic resize to a square, ignoring aspect: uint8 [h, w, 3] -> uint8 [size, size, 3].

    Unlike PIL, values are not rounded to integers between the two passes.
    """
    height, width, _ = image.shape
    if height == size and width == size:
        return image.copy()
    rows = np.ascontiguousarray(image).reshape(height, width * 3)
    first, weights = _taps(height, size)
    columns_first, columns_weights = _taps(width, size)
    line = np.empty(width * 3, np.float32)
    # Taps beyond the last pixel have weight zero but are still read.
    columns = np.zeros((width + columns_weights.shape[1], 3, _LANES), np.float32)
    mixed = np.empty((3, _LANES), np.float32)
    out = np.empty((size, size, 3), np.uint8)
    for y in range(0, size, _LANES):
        count = min(_LANES, size - y)
        for lane in range(count):
            _mix_rows(rows, first[y + lane], weights[y + lane], line)
            for x in range(width):
                for c in range(3):
                    columns[x, c, lane] = line[3 * x + c]
        for x in range(size):
            _mix_columns(columns, columns_first[x], columns_weights[x], mixed)
            for lane in range(count):
                for c in range(3):
                    out[y + lane, x, c] = _level(mixed[c, lane])
    return out


@_compiled
def _level(value):
    """Clips to [0, 255] and truncates, as PIL's C code does; add 0.5 first to round."""
    return np.uint8(min(max(value, np.float32(0.0)), np.float32(255.0)))


@_compiled
def apply(image, operation, amount):
    """Applies one operation to an image uint8 [h, w, 3]; see `cbalign.data.augment.views.OPERATIONS`."""
    height, width, _ = image.shape
    if operation == AUTO_CONTRAST:
        return _look_up(image, _contrast_tables(image))
    if operation == EQUALIZE:
        return _look_up(image, _equalizing_tables(image))
    if operation == BRIGHTNESS:
        return _look_up(image, _brightness_tables(amount))
    if operation == SHARPNESS:
        return _sharpen(image, amount)
    if operation == SHEAR_X:
        return warp(image, 1.0, -amount, 0.0, 0.0, 1.0, 0.0)
    if operation == SHEAR_Y:
        return warp(image, 1.0, 0.0, 0.0, -amount, 1.0, 0.0)
    if operation == TRANSLATE_X:
        return warp(image, 1.0, 0.0, amount, 0.0, 1.0, 0.0)
    if operation == TRANSLATE_Y:
        return warp(image, 1.0, 0.0, 0.0, 0.0, 1.0, amount)
    if operation == ROTATE:
        angle, x, y = amount * (math.pi / 180.0), width / 2.0, height / 2.0
        cosine, sine = math.cos(angle), math.sin(angle)
        return warp(image, cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y)
    return image


@_compiled
def _look_up(image, tables):
    """Maps each channel through its look-up table; tables uint8 [3, 256]."""
    out = np.empty_like(image)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            for c in range(3):
                out[y, x, c] = tables[c, image[y, x, c]]
    return out


@_compiled
def _histograms(image):
    """int64 [3, 256]: how often each channel has each value."""
    counts = np.zeros((3, 256), np.int64)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            for c in range(3):
                counts[c, image[y, x, c]] += 1
    return counts


@_compiled
def _contrast_tables(image):
    tables, counts = np.empty((3, 256), np.uint8), _histograms(image)
    for c in range(3):
        present = np.nonzero(counts[c])[0]
        low, high = present[0], present[-1]
        scale = 255.0 / max(high - low, 1)
        for value in range(256):
            stretched = value * scale - low * scale if high > low else float(value)
            tables[c, value] = np.uint8(min(max(stretched, 0.0), 255.0))
    return tables


@_compiled
def _equalizing_tables(image):
    tables, counts = np.empty((3, 256), np.uint8), _histograms(image)
    for c in range(3):
        last = counts[c][np.nonzero(counts[c])[0][-1]]
        step = (counts[c].sum() - last) // 255
        before = step // 2
        for value in range(256):
            tables[c, value] = np.uint8(min(before // step, 255)) if step > 0 else np.uint8(value)
            before += counts[c, value]
    return tables


@_compiled
def _brightness_tables(factor):
    tables = np.empty((3, 256), np.uint8)
    for value in range(256):
        tables[:, value] = _level(np.float32(value) * np.float32(factor))
    return tables


@_vectorised
def _sharpen(image, factor):
    """Extrapolates from the smoothed image by `factor`, as PIL's ImageEnhance.Sharpness; the border is unchanged."""
    height, width, _ = image.shape
    rows = np.ascontiguousarray(image).reshape(height, width * 3)
    out, sums = rows.copy(), np.empty(width * 3, np.float32)
    change, half, thirteenth = np.float32(factor - 1.0), np.float32(0.5), np.float32(1.0 / 13.0)
    for y in range(1, height - 1):
        for x in range(width * 3):
            sums[x] = np.float32(rows[y - 1, x]) + np.float32(rows[y, x]) + np.float32(rows[y + 1, x])
        for x in range(3, width * 3 - 3):
            here = np.float32(rows[y, x])
            total = sums[x - 3] + sums[x] + sums[x + 3] + np.float32(4.0) * here
            out[y, x] = _level(here + change * (here - np.floor(total * thirteenth + half)))
    return out.reshape(image.shape)


@_compiled
def shift(image, right, down):
    """Shifts the image by whole pixels and fills with grey."""
    height, width, _ = image.shape
    out = np.full_like(image, np.uint8(FILL))
    top, left = max(down, 0), max(right, 0)
    part = image[max(-down, 0) : height - top, max(-right, 0) : width - left]
    if part.size:
        out[top : top + part.shape[0], left : left + part.shape[1]] = part
    return out


@_compiled
def warp(image, a, b, c, d, e, f):
    """Affine warp: pixel (x, y) is read from (a x + b y + c, d x + e y + f), bilinear, grey outside the image."""
    height, width, _ = image.shape
    if a == 1.0 and b == 0.0 and d == 0.0 and e == 1.0 and c == round(c) and f == round(f):
        return shift(image, -int(c), -int(f))
    # A grey frame gives every pixel four neighbours; u and v are coordinates in the framed image.
    framed = np.full((height + 2, width + 2, 3), np.uint8(FILL))
    framed[1:-1, 1:-1] = image
    flat, stride = framed.reshape(-1), 3 * (width + 2)
    out = np.full_like(image, np.uint8(FILL))
    for y in range(height):
        u, v = b * y + c + 1.0, e * y + f + 1.0
        for x in range(width):
            if 0.0 < u < width + 1 and 0.0 < v < height + 1:
                left, top = int(u), int(v)
                # Fixed-point weights with 11 bits, so that sums fit into 32 bits.
                right_share, low_share = np.int32((u - left) * 2048.0 + 0.5), np.int32((v - top) * 2048.0 + 0.5)
                left_share, high_share = np.int32(2048) - right_share, np.int32(2048) - low_share
                at = top * stride + 3 * left
                for k in range(3):
                    high = left_share * flat[at + k] + right_share * flat[at + 3 + k]
                    low = left_share * flat[at + stride + k] + right_share * flat[at + stride + 3 + k]
                    out[y, x, k] = np.uint8((high_share * high + low_share * low + (1 << 21)) >> 22)
            u += a
            v += d
    return out
