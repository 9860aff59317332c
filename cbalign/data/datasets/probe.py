"""Encoded images: whether they can be decoded, and how large they are."""

import io

from PIL import Image

from cbalign.data.image_files import BadImage, to_rgb

MAX_PIXELS = 64_000_000
"""Images of more pixels are refused; decoded they would take more than 192 MB each."""

# Kept byte by byte; tensorflow reads them wherever it reads images at all. MPO is JPEG with further images behind.
_KEPT = ("JPEG", "MPO", "PNG")
_QUALITY = 95


def image_size(data: bytes) -> tuple[int, int]:
    """Decodes an image to see whether it is whole, as cheaply as its format allows.

    Args:
      data: the encoded image, of any format Pillow reads.

    Returns:
      Width and height in pixels.

    Raises:
      BadImage: `empty file`, `too large` or `broken`.
    """
    with _opened(data) as image:
        return _decoded_size(image)


def kept_bytes(data: bytes) -> bytes:
    """Returns an image as it is to be kept: JPEG and PNG unchanged, any other format encoded anew as JPEG.

    Of an animation the first frame is kept, and transparent parts become white.

    Raises:
      BadImage: as `image_size`.
    """
    with _opened(data) as image:
        if image.format in _KEPT:
            _decoded_size(image)
            return data
        try:
            buffer = io.BytesIO()
            to_rgb(image).save(buffer, "JPEG", quality=_QUALITY)
            return buffer.getvalue()
        except Exception as error:
            raise BadImage("broken") from error


def _opened(data: bytes) -> Image.Image:
    if not data:
        raise BadImage("empty file")
    try:
        image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError:
        raise BadImage("too large") from None
    except Exception as error:
        # Pillow's parsers raise nearly anything on damaged files: OSError, SyntaxError, ValueError, struct.error ...
        raise BadImage("broken") from error
    if image.width * image.height > MAX_PIXELS:
        raise BadImage("too large")
    return image


def _decoded_size(image: Image.Image) -> tuple[int, int]:
    size = image.size
    try:
        # A JPEG is read to its end, yet transformed at an eighth of its size only.
        image.draft(None, (max(size[0] // 8, 1), max(size[1] // 8, 1)))
        image.load()
    except Exception as error:
        raise BadImage("broken") from error
    return size
