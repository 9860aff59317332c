"""A folder of image files as a model reads them."""

import functools
import io
import os
import pathlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps

from cbalign.data.image_files import to_rgb

MAX_PIXELS = 1 << 28
"""Images of more pixels are not decoded."""
FORMAT = 1
"""To be raised when the same file would come out of `read_image` as other pixels."""

# Pillow only writes these, or only recognises them.
_NOT_IMAGES = {".pdf", ".mpg", ".mpeg", ".h5", ".hdf", ".grib", ".bufr"}


class UnreadableImage(Exception):
    """A file that cannot be read as an image; the message is the reason in a few words."""


def read_image(path, size: int) -> np.ndarray:
    """Reads an image as the evaluation sees it: upright, RGB, transparent parts on white, the first frame, resized.

    Args:
      path: a file of any format Pillow reads.
      size: side S in pixels; the aspect is not kept.

    Returns:
      uint8 [S, S, 3].

    Raises:
      UnreadableImage: `missing`, `empty`, `too large` or `broken`.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UnreadableImage("missing")
    try:
        if not path.stat().st_size:
            raise UnreadableImage("empty")
        with path.open("rb") as stream, Image.open(stream) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableImage("too large")
            image.load()
            plain = io.BytesIO()
            to_rgb(_upright(image)).save(plain, "BMP")
    except UnreadableImage:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImage("too large") from error
    except Exception as error:
        # Pillow's decoders raise nearly anything on damaged files.
        raise UnreadableImage("broken") from error
    # Brings tensorflow, which a search among images that are known already does without.
    from cbalign.data.augment import views

    # By way of the evaluation's own code, since Pillow's resize rounds between its passes and may differ by 3 of 255.
    return views.resize(views.decode(plain.getvalue()), size).numpy()


def _upright(image):
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        # The pixels are sound, only the camera's notes are damaged.
        return image


@functools.cache
def _suffixes() -> frozenset:
    """Suffixes, with the dot, of the formats Pillow reads."""
    return frozenset(s for s, name in Image.registered_extensions().items() if name in Image.OPEN) - _NOT_IMAGES


def image_files(folder: pathlib.Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yields (path within the folder, (size in bytes, time of change in ns)) of the image files, in a fixed order."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = pathlib.Path(root, name)
            if name.startswith(".") or path.suffix.lower() not in _suffixes():
                continue
            try:
                state = path.stat()
            except OSError:
                continue  # a link to nothing, or a file that has just gone
            yield str(path.relative_to(folder)), (state.st_size, state.st_mtime_ns)
