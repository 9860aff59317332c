"""A folder of picture files as a model reads them."""

import functools
import io
import os
import pathlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps

from cbalign.data.sources.pictures import to_rgb

MAX_PIXELS = 1 << 28
"""Pictures of more pixels are not decoded."""
FORMAT = 1
"""To be raised when the same file would come out of `read_picture` as other pixels."""

# Pillow only writes these, or only recognises them.
_NOT_PICTURES = {".pdf", ".mpg", ".mpeg", ".h5", ".hdf", ".grib", ".bufr"}


class UnreadablePicture(Exception):
    """A file that cannot be read as a picture; the message is the reason in a few words."""


def read_picture(path, size: int) -> np.ndarray:
    """Reads a picture as the evaluation sees it: upright, RGB, transparent parts on white, the first frame, resized.

    Args:
      path: a file of any format Pillow reads.
      size: side S in pixels; the aspect is not kept.

    Returns:
      uint8 [S, S, 3].

    Raises:
      UnreadablePicture: `missing`, `empty`, `too large` or `broken`.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UnreadablePicture("missing")
    try:
        if not path.stat().st_size:
            raise UnreadablePicture("empty")
        with path.open("rb") as stream, Image.open(stream) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise UnreadablePicture("too large")
            picture.load()
            plain = io.BytesIO()
            to_rgb(_upright(picture)).save(plain, "BMP")
    except UnreadablePicture:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadablePicture("too large") from error
    except Exception as error:
        # Pillow's decoders raise nearly anything on damaged files.
        raise UnreadablePicture("broken") from error
    # Brings tensorflow, which a search among pictures that are known already does without.
    from cbalign.data import augment

    # By way of the evaluation's own code, since Pillow's resize rounds between its passes and may differ by 3 of 255.
    return augment.resize(augment.decode(plain.getvalue()), size).numpy()


def _upright(picture):
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:
        # The pixels are sound, only the camera's notes are damaged.
        return picture


@functools.cache
def _suffixes() -> frozenset:
    """Suffixes, with the dot, of the formats Pillow reads."""
    return frozenset(s for s, name in Image.registered_extensions().items() if name in Image.OPEN) - _NOT_PICTURES


def picture_files(folder: pathlib.Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yields (path within the folder, (size in bytes, time of change in ns)) of the picture files, in a fixed order."""
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
