"""Image files as the encoders see them."""

import numpy as np
import pytest
from PIL import Image

from cbalign import inference
from cbalign.data.augment import views
from tests.inference.conftest import blotches


def test_images_are_resized_as_in_the_evaluation(tmp_path):
    blotches(4, (71, 53)).save(tmp_path / "a.png")
    expected = views.resize(views.decode((tmp_path / "a.png").read_bytes()), 32).numpy()
    np.testing.assert_array_equal(inference.read_image(tmp_path / "a.png", 32), expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "F"])
def test_all_modes_are_read(tmp_path, mode):
    name = "a.tiff" if mode in ("CMYK", "YCbCr", "I;16", "F") else "a.png"
    blotches(5).convert("L" if mode in ("I;16", "F") else "RGB").convert(mode).save(tmp_path / name)
    pixels = inference.read_image(tmp_path / name, 16)
    assert pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8 and pixels.std() > 0


def test_transparent_parts_are_white_and_the_camera_is_turned(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (inference.read_image(tmp_path / "clear.png", 8) == 255).all()
    turned = Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 8, axis=0).repeat(4, axis=1)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: left becomes top
    turned.save(tmp_path / "turned.png", exif=exif)
    pixels = inference.read_image(tmp_path / "turned.png", 8)
    assert pixels[0].max() < 50 and pixels[-1].min() > 200


def test_a_image_of_too_many_pixels_is_refused(tmp_path, monkeypatch):
    blotches(0).save(tmp_path / "a.png")
    monkeypatch.setattr(inference.images, "MAX_PIXELS", 100)
    with pytest.raises(inference.UnreadableImage, match="too large"):
        inference.read_image(tmp_path / "a.png", 8)
