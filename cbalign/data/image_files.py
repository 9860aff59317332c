"""Image files of any kind to small, clean, encoded RGB."""

import contextlib
import io
import os
import pathlib
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps

_JPEG_QUALITY = 95
# Below this side JPEG's blocks show, and PNG costs little.
_PNG_MAX_SIDE = 128


class BadImage(Exception):
    """An image file that cannot be used; the message is the reason, one of a few fixed phrases."""


def encode_file(path: str | os.PathLike, max_side: int, max_pixels: int) -> bytes:
    """Reads an image file and encodes it anew: upright, RGB, transparent parts on white, first frame only.

    Args:
      path: a file of any format Pillow reads.
      max_side: the long side is reduced to this many pixels if it is longer.
      max_pixels: images of more pixels are refused by their header, before they are decoded.

    Returns:
      JPEG, or PNG for images of at most 128 pixels a side.

    Raises:
      BadImage: `missing`, `empty file`, `too large` or `broken`.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise BadImage("missing")
    try:
        if not file.stat().st_size:
            raise BadImage("empty file")
        with file.open("rb") as stream, Image.open(stream) as image:
            if image.width * image.height > max_pixels:
                raise BadImage("too large")
            # Lets the JPEG decoder halve its work; twice the size leaves the filter below enough to average.
            image.draft(None, (2 * max_side, 2 * max_side))
            return _encode(_reduced(to_rgb(_upright(image)), max_side))
    except BadImage:
        raise
    except Image.DecompressionBombError:
        raise BadImage("too large") from None
    except Exception as error:
        # Pillow's decoders raise nearly anything on damaged files: OSError, SyntaxError, ValueError, struct.error …
        raise BadImage("broken") from error


@contextlib.contextmanager
def pillow_limit(max_pixels: int) -> Iterator[None]:
    """Moves Pillow's own guard, which is per process, out of the way of `max_pixels` and silences its warnings."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts an image of any mode to RGB of the same size, transparent parts on white."""
    if image.mode.startswith(("I", "F")):
        return _grey(image).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    canvas = Image.new("RGBA", image.size, "white")
    canvas.alpha_composite(image)
    return canvas.convert("RGB")


def to_png(image: Image.Image) -> bytes:
    """Encodes an image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _grey(image: Image.Image) -> Image.Image:
    """Scales more than 8 bits a pixel to 8; Pillow's own conversion would clip them to white."""
    values = np.nan_to_num(np.asarray(image, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    ranges = (65535,) if image.mode.startswith("I;16") else (1, 255) if image.mode == "F" else (255, 65535)
    highest = max(float(values.max()), 0.0)
    top = next((limit for limit in ranges if highest <= limit), highest)
    return Image.fromarray(np.clip(values * (255 / top) + 0.5, 0, 255).astype(np.uint8))


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        # The pixels are sound, only the camera's notes are damaged.
        return image


def _reduced(image: Image.Image, max_side: int) -> Image.Image:
    image.thumbnail((max_side, max_side), Image.Resampling.BICUBIC)
    return image


def _encode(image: Image.Image) -> bytes:
    if max(image.size) <= _PNG_MAX_SIDE:
        return to_png(image)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()
