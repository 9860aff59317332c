"""Image files of any format as pixels: the one place that decides what an image looks like.

But for `load_plain` (`data.plain_rgb`), an image is upright (turned as its EXIF orientation says), RGB with 8 bits a
channel (more bits are scaled, CMYK is converted), with transparent parts on white, and the first frame of an animation.
Needs no tensorflow.
"""

import contextlib
import io
import os
import pathlib
import threading
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 64_000_000
"""Larger images do not enter a data set; decoded they would take more than 192 MB each."""
MAX_DECODED_PIXELS = 1 << 28
"""Larger images are never decoded."""

ImageSource = str | os.PathLike | bytes | Image.Image
"""A file by its path, its content, or an image opened with Pillow."""

_JPEG_QUALITY = 95
# Up to this side JPEG's blocks show, and PNG costs little.
_PNG_MAX_SIDE = 128
_PNG = b"\x89PNG\r\n\x1a\n"
# Those that a decoder which knows nothing of transparency shows as they are.
_PLAIN_MODES = ("1", "L", "P", "RGB")


class BadImage(Exception):
    """An image that cannot be used; the message is the reason, one of a few fixed phrases."""


def load_rgb(source: ImageSource, *, max_pixels: int = MAX_DECODED_PIXELS) -> np.ndarray:
    """Decodes an image.

    Args:
      source: a file of any format Pillow reads, its content, or an image opened with Pillow.
      max_pixels: images with more pixels are refused by their header, before they are decoded.

    Returns:
      uint8 [h, w, 3].

    Raises:
      BadImage: `missing`, `no permission`, `empty file`, `too large`, `no decoder` or `broken`.
    """
    with opened(source, max_pixels) as image:
        return np.array(to_rgb(_upright(image)))


def read_resized(source: ImageSource | np.ndarray, size: int, *, max_pixels: int = MAX_DECODED_PIXELS) -> np.ndarray:
    """Decodes an image and resizes it to a square, exactly as evaluation does: antialiased bicubic, aspect not kept.

    Args:
      source: as for `load_rgb`, or pixels uint8 [h, w, 3].
      size: side S in pixels.
      max_pixels: as for `load_rgb`.

    Returns:
      uint8 [S, S, 3].

    Raises:
      BadImage: as for `load_rgb`, and for an array of another shape or dtype.
    """
    # Imported late: numba takes longer to load than a command takes to refuse its flags.
    from cbalign.data.augment import kernels

    if not isinstance(source, np.ndarray):
        pixels = load_rgb(source, max_pixels=max_pixels)
    elif source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or not source.size:
        raise BadImage(f"an array of {source.dtype} {list(source.shape)} is not one of uint8 [height, width, 3]")
    else:
        # Writable and contiguous, since numba compiles anew for any other kind of array.
        pixels = np.require(source, requirements=("C", "W"))
    return kernels.resize(pixels, size)


def encode_file(path: str | os.PathLike, max_side: int, max_pixels: int) -> bytes:
    """Reads an image file and encodes it again.

    Args:
      path: a file of any format Pillow reads.
      max_side: the long side is reduced to this many pixels if it is longer.
      max_pixels: images with more pixels are refused by their header, before they are decoded.

    Returns:
      JPEG, or PNG for images of at most 128 pixels a side.

    Raises:
      BadImage: as for `load_rgb`.
    """
    with opened(path, max_pixels) as image:
        # Lets the JPEG decoder reduce by a power of two; twice the size leaves the filter below enough to average.
        image.draft(None, (2 * max_side, 2 * max_side))
        image = to_rgb(_upright(image))
        image.thumbnail((max_side, max_side), Image.Resampling.BICUBIC)
        return to_png(image) if max(image.size) <= _PNG_MAX_SIDE else to_jpeg(image)


def load_plain(source: ImageSource, *, max_pixels: int = MAX_DECODED_PIXELS) -> np.ndarray:
    """Decodes an image as ALBEF's data sets do, with Pillow's `convert("RGB")` alone; see `load_rgb`.

    The image is not turned, hidden colours of transparent parts show, and more than 8 bits of grey are clipped.
    """
    with opened(source, max_pixels) as image:
        return np.array(image.convert("RGB"))


def is_plain(data: bytes) -> bool:
    """Whether a JPEG or PNG decoder that knows nothing of EXIF, transparency and CMYK shows the pixels of `load_rgb`.

    Reads the header alone. True as well for what only looks like JPEG or PNG: the decoder finds out.
    """
    if data.startswith(_PNG):
        return not _png_is_special(data) or _header_is_plain(data)
    if data.startswith(b"\xff\xd8"):
        return not _jpeg_is_special(data) or _header_is_plain(data)
    return False


def _png_is_special(data: bytes) -> bool:
    """Whether a PNG may have transparency, 16 bits of grey or an orientation."""
    if len(data) < 33 or data[25] in (4, 6) or (data[24] == 16 and data[25] == 0):
        return True
    before = data[: data.find(b"IDAT")]
    return any(chunk in before for chunk in (b"tRNS", b"eXIf", b"XMP", b"iTXt")) or b"eXIf" in data[-4096:]


def _jpeg_is_special(data: bytes) -> bool:
    """Whether a JPEG may have an orientation, or has not one or three components."""
    place = 2
    while place + 9 < len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4])
        if marker == 0xE1:
            return True
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return data[place + 9] not in (1, 3)
        place += 2 + length
    return True


def _header_is_plain(data: bytes) -> bool:
    """`is_plain` by Pillow's reading of the header."""
    try:
        with pillow_limit(MAX_DECODED_PIXELS), Image.open(io.BytesIO(data)) as image:
            if image.mode not in _PLAIN_MODES or image.has_transparency_data:
                return False
            return orientation(image) == 1
    except Exception:  # noqa: BLE001 - Pillow raises nearly anything on damaged files
        return True


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


def to_png(image: Image.Image, **options) -> bytes:
    """Encodes an image as PNG, with options of Pillow's."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def to_jpeg(image: Image.Image, **options) -> bytes:
    """Encodes an RGB image as JPEG of quality 95, with options of Pillow's."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY, **options)
    return buffer.getvalue()


_limits: list[int] = []
_limits_lock = threading.Lock()
_outside = {}


@contextlib.contextmanager
def pillow_limit(max_pixels: int) -> Iterator[None]:
    """Moves Pillow's guard against huge images, one per process, out of the way of `max_pixels`; silences its warnings.

    May be nested and entered by several threads at once: the largest limit holds until the last one leaves.
    """
    with _limits_lock:
        if not _limits:
            _outside.update(limit=Image.MAX_IMAGE_PIXELS, warnings=warnings.catch_warnings())
            _outside["warnings"].__enter__()
            warnings.filterwarnings("ignore", module="PIL")
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        _limits.append(max_pixels)
        Image.MAX_IMAGE_PIXELS = max(_limits)
    try:
        yield
    finally:
        with _limits_lock:
            _limits.remove(max_pixels)
            if _limits:
                Image.MAX_IMAGE_PIXELS = max(_limits)
            else:
                Image.MAX_IMAGE_PIXELS = _outside["limit"]
                _outside["warnings"].__exit__(None, None, None)


@contextlib.contextmanager
def opened(source: ImageSource, max_pixels: int) -> Iterator[Image.Image]:
    """Opens an image by its header; whatever goes wrong with it in the block becomes a `BadImage`.

    Raises:
      BadImage: as for `load_rgb`.
    """
    try:
        with pillow_limit(max_pixels), contextlib.ExitStack() as stack:
            image = source if isinstance(source, Image.Image) else stack.enter_context(_open(source))
            if image.width * image.height > max_pixels:
                raise BadImage("too large")
            yield image
    except BadImage:
        raise
    except Image.DecompressionBombError:
        raise BadImage("too large") from None
    except FileNotFoundError as error:
        raise BadImage("missing") from error
    except PermissionError as error:
        raise BadImage("no permission") from error
    except UnidentifiedImageError as error:
        raise BadImage("no decoder" if _needs_decoder(source) else "broken") from error
    except Exception as error:
        # Pillow's decoders raise nearly anything on damaged files: OSError, SyntaxError, ValueError, struct.error ...
        raise BadImage("broken") from error


@contextlib.contextmanager
def _open(source: str | os.PathLike | bytes) -> Iterator[Image.Image]:
    if isinstance(source, bytes):
        if not source:
            raise BadImage("empty file")
        stream = io.BytesIO(source)
    else:
        file = pathlib.Path(source)
        # Not a mere test of existence: to open a named pipe would wait for ever.
        if not file.is_file():
            raise BadImage("missing")
        if not file.stat().st_size:
            raise BadImage("empty file")
        stream = file.open("rb")
    with stream, Image.open(stream) as image:
        yield image


def _needs_decoder(source: ImageSource) -> bool:
    """Whether what Pillow does not know is an image nevertheless: HEIF, AVIF, JPEG XL, SVG or a camera's raw format."""
    if isinstance(source, bytes):
        start, name = source[:256], ""
    else:
        try:
            with open(source, "rb") as file:
                start, name = file.read(256), os.fspath(source).lower()
        except OSError:  # it was there a moment ago
            return False
    known = start[4:8] == b"ftyp" or start[:12] == b"\0\0\0\x0cJXL \r\n\x87\n" or b"<svg" in start.lower()
    return known or name.endswith((".dng", ".cr2", ".cr3", ".nef", ".arw"))


def _grey(image: Image.Image) -> Image.Image:
    """Scales more than 8 bits a pixel to 8; Pillow's own conversion would clip them to white."""
    values = np.nan_to_num(np.asarray(image, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    ranges = (65535,) if image.mode.startswith("I;16") else (1, 255) if image.mode == "F" else (255, 65535)
    highest = max(float(values.max()), 0.0)
    top = next((limit for limit in ranges if highest <= limit), highest)
    levels = np.clip(values * (255 / top) + 0.5, 0, 255).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        levels[values == transparent] = 255
    return Image.fromarray(levels)


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says; not mirrored or turned where the camera's notes are damaged."""
    # First: some decoders turn the image themselves while they load it, and then remove the note.
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 - Pillow raises nearly anything on damaged metadata
        return image


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an image, 1 to 8; 1 where there is none, or the camera's notes are damaged."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - Pillow raises nearly anything on damaged metadata
        return 1
    return found if found in range(2, 9) else 1
