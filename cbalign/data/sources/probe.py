"""Encoded pictures: whether they can be decoded, and how large they are."""

import io

from PIL import Image

from cbalign.data.sources.pictures import BadPicture, to_rgb

MAX_PIXELS = 64_000_000
"""Pictures of more pixels are refused; decoded they would take more than 192 MB each."""

# Kept byte by byte; tensorflow reads them wherever it reads pictures at all. MPO is JPEG with further pictures behind.
_KEPT = ("JPEG", "MPO", "PNG")
_QUALITY = 95


def picture_size(data: bytes) -> tuple[int, int]:
    """Decodes a picture to see whether it is whole, as cheaply as its format allows.

    Args:
      data: the encoded picture, of any format Pillow reads.

    Returns:
      Width and height in pixels.

    Raises:
      BadPicture: `empty file`, `too large` or `broken`.
    """
    with _opened(data) as picture:
        return _decoded_size(picture)


def kept_bytes(data: bytes) -> bytes:
    """Returns a picture as it is to be kept: JPEG and PNG unchanged, any other format encoded anew as JPEG.

    Of an animation the first frame is kept, and transparent parts become white.

    Raises:
      BadPicture: as `picture_size`.
    """
    with _opened(data) as picture:
        if picture.format in _KEPT:
            _decoded_size(picture)
            return data
        try:
            buffer = io.BytesIO()
            to_rgb(picture).save(buffer, "JPEG", quality=_QUALITY)
            return buffer.getvalue()
        except Exception as error:
            raise BadPicture("broken") from error


def _opened(data: bytes) -> Image.Image:
    if not data:
        raise BadPicture("empty file")
    try:
        picture = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError:
        raise BadPicture("too large") from None
    except Exception as error:
        # Pillow's parsers raise nearly anything on damaged files: OSError, SyntaxError, ValueError, struct.error ...
        raise BadPicture("broken") from error
    if picture.width * picture.height > MAX_PIXELS:
        raise BadPicture("too large")
    return picture


def _decoded_size(picture: Image.Image) -> tuple[int, int]:
    size = picture.size
    try:
        # A JPEG is read to its end, yet transformed at an eighth of its size only.
        picture.draft(None, (max(size[0] // 8, 1), max(size[1] // 8, 1)))
        picture.load()
    except Exception as error:
        raise BadPicture("broken") from error
    return size
