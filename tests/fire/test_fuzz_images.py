"""Image files of any content: pixels of a bounded number, or one of a few reasons; and training decodes what is stored."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import example, given
from PIL import Image

from cbalign.data.augment import views
from cbalign.data.image_files import BadImage, encode_file, is_plain, load_plain, load_rgb, read_resized
from cbalign.data.stored_images import decoded_size, stored_bytes
from tests.fire.fuzzing import check_refusal, examples, mutated

pytestmark = pytest.mark.slow

REASONS = {"missing", "no permission", "empty file", "too large", "no decoder", "broken"}
LIMIT = 1 << 20


def seeds():
    """Small images of each format and of several modes, with EXIF, transparency and several frames."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 4), np.uint8)
    picture = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    found = []
    for kind, mode, options in (
        ("PNG", "RGBA", {"exif": exif}),
        ("PNG", "P", {}),
        ("PNG", "L", {}),
        ("JPEG", "RGB", {"exif": exif}),
        ("JPEG", "CMYK", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("WEBP", "RGBA", {"exif": exif}),
        ("WEBP", "RGB", {"lossless": True}),
        ("GIF", "P", {"save_all": True, "append_images": [picture.convert("P")]}),
        ("BMP", "RGB", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("ICO", "RGBA", {}),
    ):
        buffer = io.BytesIO()
        picture.convert("RGB" if mode in ("CMYK", "P") else mode).convert(mode).save(buffer, kind, **options)
        found.append(buffer.getvalue())
    return found


SEEDS = seeds()


def huge(side):
    """A PNG that claims to be `side` pixels wide and high."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    rest = b"".join(
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d))
        for k, d in ((b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + rest


@examples(150)
@given(mutated(SEEDS))
@example(huge(100_000))
@example(huge(2**31 - 1))
@example(b"")
@example(b"<svg")
def test_images(tmp_path, data):
    (tmp_path / "image").write_bytes(data)
    for load in (load_rgb, load_plain):
        for source in (data, tmp_path / "image"):
            try:
                pixels = load(source, max_pixels=LIMIT)
            except BadImage as error:
                check_refusal(error, REASONS)
            else:
                assert pixels.dtype == np.uint8 and pixels.shape[2:] == (3,) and 0 < pixels.size <= 3 * LIMIT
    assert is_plain(data) in (True, False)
    try:
        assert read_resized(data, 8, max_pixels=LIMIT).shape == (8, 8, 3)
        Image.open(io.BytesIO(encode_file(tmp_path / "image", 16, LIMIT))).load()
    except BadImage as error:
        check_refusal(error, REASONS)
    try:
        decoded_size(data)
        stored = stored_bytes(data)
    except BadImage as error:
        check_refusal(error, REASONS)
        return
    # What a data set takes in, training must be able to decode.
    decoded = views.decode(stored).numpy()
    assert decoded.dtype == np.uint8 and decoded.shape[2:] == (3,) and decoded.size


def test_claimed_sizes_are_refused_by_the_header():
    for side in (20_000, 100_000, 2**31 - 1):
        for refuse in (load_rgb, load_plain, decoded_size, stored_bytes):
            with pytest.raises(BadImage, match="^(too large|broken)$"):
                refuse(huge(side))
