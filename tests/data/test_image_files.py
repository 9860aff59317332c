"""How image files become pixels, on files of all kinds in `image_cases/`.

There a red disc (200, 30, 30) lies on white, or on a transparent ground whose hidden colour is green, and o1 to o8 show
one image, of four coloured corners, stored in each of the eight EXIF orientations.
"""

import io
import os
import pathlib
import struct
import threading
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cbalign.data import image_files
from cbalign.data.augment import views
from cbalign.data.image_files import BadImage, load_plain, load_rgb, pillow_limit, read_resized
from cbalign.data.stored_images import check_png, decoded_size, stored_bytes

CASES = pathlib.Path(__file__).parent / "image_cases"
RED, WHITE = (200, 30, 30), (255, 255, 255)
ALPHA = sorted(path.name for path in CASES.iterdir() if path.name[:2] not in {f"o{i}" for i in range(1, 9)})


def corner_and_centre(pixels):
    height, width = pixels.shape[:2]
    return pixels[0, 0].tolist(), pixels[height // 2, width // 2].tolist()


@pytest.mark.parametrize("name", [name for name in ALPHA if not name.startswith(("bilevel", "grey", "half", "la"))])
def test_a_disc_on_white_whatever_the_format(name):
    pixels = load_rgb(CASES / name)
    assert pixels.shape == (160, 160, 3) and pixels.dtype == np.uint8 and pixels.flags.writeable
    np.testing.assert_allclose(corner_and_centre(pixels), (WHITE, RED), atol=2)


def test_half_transparent_pixels_are_mixed_with_white():
    share = 128 / 255
    expected = [[share * x + (1 - share) * 255 for x in color] for color in ((10, 240, 20), RED)]
    np.testing.assert_allclose(corner_and_centre(load_rgb(CASES / "half.png")), expected, atol=1)
    assert corner_and_centre(load_rgb(CASES / "la.png")) == ([255] * 3, [60] * 3)


def test_sixteen_bits_are_scaled_to_eight():
    stored = np.asarray(Image.open(CASES / "grey16.png"))
    assert stored.max() == 65535
    np.testing.assert_array_equal(load_rgb(CASES / "grey16.png")[..., 0], np.floor(stored / 257 + 0.5))


def test_a_transparent_level_of_sixteen_bits_is_white(tmp_path):
    levels = np.full((4, 4), 1000, np.uint16)
    levels[0] = 5000
    Image.fromarray(levels).save(tmp_path / "a.png", transparency=5000)
    pixels = load_rgb(tmp_path / "a.png")
    assert (pixels[0] == 255).all() and (pixels[1:] == 4).all()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright(tmp_path, suffix, orientation):
    path = CASES / f"o{orientation}.{suffix}"
    if suffix == "tif":
        path = tmp_path / "a.tif"
        with Image.open(CASES / f"o{orientation}.png") as stored:
            Image.fromarray(np.asarray(stored)).save(path, exif=stored.getexif())
    elif path.suffix not in Image.registered_extensions():
        pytest.skip(f"Pillow was built without {suffix}")
    pixels = load_rgb(path)
    assert pixels.shape == (120, 160, 3)
    corners = [pixels[y, x] for y in (2, -3) for x in (2, -3)]
    np.testing.assert_allclose(corners, [(220, 20, 20), (20, 200, 20), (20, 20, 220), (250, 250, 250)], atol=4)


def test_a_path_its_content_and_an_opened_image_are_the_same():
    path = CASES / "o6.jpg"
    with Image.open(path) as opened:
        for source in (str(path), path.read_bytes(), opened):
            np.testing.assert_array_equal(load_rgb(source), load_rgb(path))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "F"])
def test_all_modes_are_read(tmp_path, mode):
    colors = np.random.default_rng(5).integers(0, 256, (5, 5, 3), np.uint8)
    image = Image.fromarray(colors).resize((40, 30), Image.Resampling.NEAREST)
    name = {"CMYK": "a.tiff", "YCbCr": "a.jpg", "I;16": "a.tiff", "F": "a.tiff"}.get(mode, "a.png")
    image.convert("L" if mode in ("I;16", "F") else "RGB").convert(mode).save(tmp_path / name)
    pixels = read_resized(tmp_path / name, 16)
    assert pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8 and pixels.std() > 0


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (32, 32), (53, 71), (400, 31), (32, 33), (300, 257)])
@pytest.mark.parametrize("size", [1, 16, 32, 33])
def test_images_are_resized_exactly_as_in_evaluation(shape, size):
    pixels = np.random.default_rng(size).integers(0, 256, (*shape, 3), np.uint8)
    expected = views.resize(pixels, size).numpy()
    np.testing.assert_array_equal(read_resized(pixels, size), expected)
    # Whatever the memory's layout.
    np.testing.assert_array_equal(read_resized(np.asfortranarray(pixels), size), expected)
    frozen = pixels.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(read_resized(frozen, size), expected)


@pytest.mark.parametrize("name", sorted(path.name for path in CASES.iterdir()))
def test_a_data_set_shows_the_same_pixels(name):
    """Decoded by tensorflow as evaluation does, after a data set has stored the file."""
    if (CASES / name).suffix not in Image.registered_extensions():
        pytest.skip("Pillow was built without this format")
    data = (CASES / name).read_bytes()
    stored = stored_bytes(data)
    decoded = views.decode(stored).numpy()
    np.testing.assert_array_equal(decoded, load_rgb(stored))
    np.testing.assert_array_equal(views.resize(decoded, 32).numpy(), read_resized(stored, 32))
    # What is encoded again as JPEG loses a little.
    lossy = stored != data and Image.open(io.BytesIO(stored)).format == "JPEG"
    difference = np.abs(decoded.astype(int) - load_rgb(data))
    assert difference.mean() < 2 if lossy else not difference.any()


def test_jpeg_and_png_are_stored_unchanged():
    for path in CASES.iterdir():
        data = path.read_bytes()
        jpeg_or_png = data.startswith((b"\x89PNG", b"\xff\xd8"))
        if path.suffix in Image.registered_extensions():
            assert (stored_bytes(data) == data) == jpeg_or_png, path.name


@pytest.mark.parametrize("name", sorted(path.name for path in CASES.iterdir()))
def test_plain_rgb_is_pillows_own_conversion(name):
    """What ALBEF's data sets do, `Image.open(path).convert("RGB")`; also once a data set has stored the file."""
    if (CASES / name).suffix not in Image.registered_extensions():
        pytest.skip("Pillow was built without this format")
    data = (CASES / name).read_bytes()
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(load_plain(data), expected)
    np.testing.assert_array_equal(views.decode(data, plain_rgb=True).numpy(), expected)
    stored = views.decode(stored_bytes(data), plain_rgb=True).numpy()
    # Pillow's AVIF decoder turns the image itself.
    assert stored.shape == expected.shape and np.abs(stored.astype(int) - expected).mean() < 2


def chunks_of(png):
    """[(kind, start, end)] of a PNG's chunks."""
    place, found = 8, []
    while place < len(png):
        length = int.from_bytes(png[place : place + 4])
        found.append((png[place + 4 : place + 8], place, place + 12 + length))
        place += 12 + length
    return found


def damaged_pngs():
    """{kind of damage: PNG}; Pillow reads all but the last one."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "PNG", compress_level=6)
    png = buffer.getvalue()
    _, start, end = next(chunk for chunk in chunks_of(png) if chunk[0] == b"IDAT")
    content = png[start + 8 : end - 4]

    def rebuilt(data):
        body = b"IDAT" + data
        return png[:start] + struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body)) + png[end:]

    flipped = bytearray(png)
    flipped[(start + end) // 2] ^= 0x55
    return {
        "checksum of the image data": png[: end - 4] + b"\0\0\0\0" + png[end:],
        "checksum of the stream": rebuilt(content[:-4] + b"\0\0\0\0"),
        "end of the stream": rebuilt(content[:-4]),
        "last bytes": png[: end - 4],
        "flipped bits": bytes(flipped),
        "half": png[: len(png) // 2],
    }


@pytest.mark.parametrize("kind", damaged_pngs())
def test_what_passes_the_check_can_be_decoded_in_training(kind, tmp_path):
    """And the other way round: what training cannot decode does not pass."""
    data = damaged_pngs()[kind]
    (tmp_path / "a.png").write_bytes(data)
    try:
        views.decode(data)
    except tf.errors.OpError:
        for refuses in (decoded_size, stored_bytes):
            with pytest.raises(BadImage, match="^broken$"):
                refuses(data)
        with pytest.raises(BadImage, match="^broken$"):
            check_png(tmp_path / "a.png")
    else:
        assert decoded_size(data) == (64, 64) and stored_bytes(data) == data


def test_damage_that_pillow_forgives_is_found():
    assert sum(_refused(data) for data in damaged_pngs().values()) >= 3


def _refused(data):
    try:
        decoded_size(data)
    except BadImage:
        return True
    return False


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.95])
def test_truncated_files_of_every_kind(cut):
    for name in ("o1.jpg", "o6.jpg", "cmyk.jpg", "mpo.jpg", "rgba.png", "o3.png", "anim.webp", "palette.gif"):
        data = (CASES / name).read_bytes()
        data = data[: int(cut * len(data))]
        try:
            stored = stored_bytes(data)
        except BadImage:
            continue
        # What is kept can be decoded, as of a file of several images whose first one is whole.
        assert name in ("mpo.jpg", "anim.webp", "palette.gif") and views.decode(stored).shape == load_rgb(stored).shape


def test_images_without_a_decoder_are_named(tmp_path):
    for name, data in {
        "a.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99),
        "a.jxl": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99),
        "a.svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
    }.items():
        (tmp_path / name).write_bytes(data)
        for source in (tmp_path / name, data):
            with pytest.raises(BadImage, match="^no decoder$"):
                load_rgb(source)


def test_what_cannot_be_used_has_a_reason(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "cut.png").write_bytes((CASES / "rgb16.png").read_bytes()[:300])
    (tmp_path / "text.png").write_text("no image")
    os.mkfifo(tmp_path / "pipe.png")
    for name, reason in (
        ("none.png", "missing"),
        ("pipe.png", "missing"),
        ("empty.png", "empty file"),
        ("cut.png", "broken"),
        ("text.png", "broken"),
    ):
        with pytest.raises(BadImage, match=f"^{reason}$"):
            load_rgb(tmp_path / name)
    with pytest.raises(BadImage, match="^empty file$"):
        load_rgb(b"")
    with pytest.raises(BadImage, match="^too large$"):
        load_rgb(CASES / "o1.png", max_pixels=160 * 120 - 1)
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(BadImage, match="is not one of uint8"):
            read_resized(wrong, 8)


def test_pillows_limit_holds_until_the_last_one_leaves(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with pillow_limit(1 << 30):
            inside.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    with pillow_limit(50):
        thread.start()
        inside.wait()
        assert Image.MAX_IMAGE_PIXELS == 1 << 30
    assert Image.MAX_IMAGE_PIXELS == 1 << 30
    # Twice Pillow's own limit would be refused.
    assert load_rgb(CASES / "o1.png").shape == (120, 160, 3)
    leave.set()
    thread.join()
    assert Image.MAX_IMAGE_PIXELS == 1000 and not image_files._limits
