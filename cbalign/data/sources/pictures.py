"""Picture files of any kind to small, clean, encoded RGB."""

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


class BadPicture(Exception):
    """A picture file that cannot be used; the message is the reason, one of a few fixed phrases."""


def encode_file(path: str | os.PathLike, max_side: int, max_pixels: int) -> bytes:
    """Reads a picture file and encodes it anew: upright, RGB, transparent parts on white, first frame only.

    Args:
      path: a file of any format Pillow reads.
      max_side: the long side is reduced to this many pixels if it is longer.
      max_pixels: pictures of more pixels are refused by their header, before they are decoded.

    Returns:
      JPEG, or PNG for pictures of at most 128 pixels a side.

    Raises:
      BadPicture: `missing`, `empty file`, `too large` or `broken`.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise BadPicture("missing")
    try:
        if not file.stat().st_size:
            raise BadPicture("empty file")
        with file.open("rb") as stream, Image.open(stream) as picture:
            if picture.width * picture.height > max_pixels:
                raise BadPicture("too large")
            # Lets the JPEG decoder halve its work; twice the size leaves the filter below enough to average.
            picture.draft(None, (2 * max_side, 2 * max_side))
            return _encode(_reduced(to_rgb(_upright(picture)), max_side))
    except BadPicture:
        raise
    except Image.DecompressionBombError:
        raise BadPicture("too large") from None
    except Exception as error:
        # Pillow's decoders raise nearly anything on damaged files: OSError, SyntaxError, ValueError, struct.error …
        raise BadPicture("broken") from error


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


def to_rgb(picture: Image.Image) -> Image.Image:
    """Converts a picture of any mode to RGB of the same size, transparent parts on white."""
    if picture.mode.startswith(("I", "F")):
        return _grey(picture).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    canvas = Image.new("RGBA", picture.size, "white")
    canvas.alpha_composite(picture)
    return canvas.convert("RGB")


def to_png(picture: Image.Image) -> bytes:
    """Encodes a picture as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _grey(picture: Image.Image) -> Image.Image:
    """Scales more than 8 bits a pixel to 8; Pillow's own conversion would clip them to white."""
    values = np.nan_to_num(np.asarray(picture, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    ranges = (65535,) if picture.mode.startswith("I;16") else (1, 255) if picture.mode == "F" else (255, 65535)
    highest = max(float(values.max()), 0.0)
    top = next((limit for limit in ranges if highest <= limit), highest)
    return Image.fromarray(np.clip(values * (255 / top) + 0.5, 0, 255).astype(np.uint8))


def _upright(picture: Image.Image) -> Image.Image:
    picture.load()
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:
        # The pixels are sound, only the camera's notes are damaged.
        return picture


def _reduced(picture: Image.Image, max_side: int) -> Image.Image:
    picture.thumbnail((max_side, max_side), Image.Resampling.BICUBIC)
    return picture


def _encode(picture: Image.Image) -> bytes:
    if max(picture.size) <= _PNG_MAX_SIDE:
        return to_png(picture)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()
