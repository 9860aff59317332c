"""How data sets store image files: unchanged where tensorflow reads the format, and only where they can be decoded."""

from __future__ import annotations

import os

import tensorflow as tf
from PIL import ExifTags, Image

from cbalign.data.augment.views import decode
from cbalign.data.image_files import MAX_PIXELS, BadImage, is_plain, opened, orientation, to_jpeg, to_png, to_rgb

# Formats that are stored unchanged. MPO is JPEG with further images behind the first.
_STORED = ("JPEG", "MPO", "PNG")
_PNG = b"\x89PNG\r\n\x1a\n"
# A JPEG is read to its end, yet transformed at an eighth of its size only.
_EIGHTH = 8


def decoded_size(data: bytes) -> tuple[int, int]:
    """Decodes an encoded image as training does, to see whether it can, and as cheaply as its format allows.

    Returns:
      Width and height in pixels, as stored.

    Raises:
      BadImage: `empty file`, `too large` (more than `MAX_PIXELS`), `no decoder` or `broken`.
    """
    with opened(data, MAX_PIXELS) as image:
        size, stored = image.size, image.format in _STORED
        if not stored or not is_plain(data):
            image.load()
    if not stored:
        return size
    try:
        # Also what Pillow shows in training: it forgives damage of which the other decoder makes an error.
        decode_whole(data)
    except tf.errors.OpError as error:
        raise BadImage("broken") from error
    return size


def decode_whole(data: bytes) -> None:
    """Has tensorflow decode a JPEG or PNG; raises its error where it cannot, as training would."""
    with tf.device("CPU:0"):
        if not data.startswith(b"\xff\xd8"):
            tf.io.decode_png(data)
        elif is_plain(data):
            tf.io.decode_jpeg(data, channels=3, ratio=_EIGHTH, dct_method="INTEGER_ACCURATE")
        else:
            decode(data)


def stored_bytes(data: bytes) -> bytes:
    """An encoded image as a data set stores it; `views.decode` gives the pixels of `load_rgb`, or of `load_plain`.

    JPEG and PNG stay unchanged. Everything else is encoded again as JPEG, or as PNG where it has transparency; its
    orientation is kept.

    Raises:
      BadImage: as for `decoded_size`.
    """
    with opened(data, MAX_PIXELS) as image:
        if image.format not in _STORED:
            return _encoded_again(image)
    decoded_size(data)
    return data


def _encoded_again(image: Image.Image) -> bytes:
    # First: some decoders turn the image themselves while they load it, and then remove the note.
    image.load()
    turned, options = orientation(image), {}
    if turned != 1:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = turned
        options["exif"] = exif
    if image.has_transparency_data:
        return to_png(image.convert("RGBA"), **options)
    return to_jpeg(to_rgb(image), **options)


def check_png(path: os.PathLike) -> None:
    """Refuses a damaged PNG that Pillow reads nevertheless, with whatever pixels it makes of it.

    Raises:
      BadImage: `broken`; `missing` where it is gone.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(len(_PNG))
            if data != _PNG:
                return
            data += file.read()
    except OSError as error:
        raise BadImage("missing") from error
    try:
        decode_whole(data)
    except tf.errors.OpError as error:
        raise BadImage("broken") from error
