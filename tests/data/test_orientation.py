"""Images that a data set stores as they came: training and evaluation see them as `load_rgb` shows them, or plainly."""

import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from cbalign.data.columns import Columns
from cbalign.data.image_files import load_plain, read_resized
from cbalign.data.pipeline import eval_batches, train_batches
from cbalign.data.records import records_in_memory
from cbalign.data.stored_images import stored_bytes

CASES = pathlib.Path(__file__).parent / "image_cases"
NAMES = ["o6.jpg", "o3.png", "o8.webp", "rgba.png", "cmyk.jpg", "grey16.png", "la.png", "mpo.jpg", "palette.gif"]


def records(*, decode, plain_rgb=False):
    images = [(stored_bytes((CASES / name).read_bytes()),) for name in NAMES]
    made = records_in_memory("captions", images, [["x"]] * len(images), decode=decode)
    made.images.plain_rgb = plain_rgb
    return made


def evaluated(made):
    ((batch, valid),) = eval_batches(made, image_size=32, batch_size=len(NAMES))
    assert valid == len(NAMES)
    return batch["image"].astype(int)


@pytest.mark.parametrize("decode", [True, False])
def test_evaluation_sees_what_the_user_sees(decode):
    expected = [read_resized(CASES / name, 32) for name in NAMES]
    assert np.abs(evaluated(records(decode=decode)) - expected).mean(axis=(1, 2, 3)).max() < 2


@pytest.mark.parametrize("decode", [True, False])
def test_plain_rgb_gives_pillows_conversion(decode):
    plain = [np.asarray(Image.open(io.BytesIO((CASES / name).read_bytes())).convert("RGB")) for name in NAMES]
    expected = [read_resized(np.array(pixels), 32) for pixels in plain]
    assert np.abs(evaluated(records(decode=decode, plain_rgb=True)) - expected).mean(axis=(1, 2, 3)).max() < 2
    assert load_plain(CASES / "o6.jpg").shape != (120, 160, 3)


@pytest.mark.slow
def test_training_decodes_parts_to_the_same_pixels():
    """In memory images are decoded whole; else only what the views show, where that is possible."""

    def first(decode, plain_rgb):
        made = records(decode=decode, plain_rgb=plain_rgb)
        columns = Columns(np.ones((len(NAMES), 4), np.int32))
        settings = {"image_size": 16, "scale": (0.3, 1.0), "global_batch": len(NAMES), "seed": 1}
        batches = train_batches(made, columns, **settings)
        batch = next(batches)
        batches.close()
        assert not batch["replaced"].any()
        return batch["image"]

    for plain_rgb in (False, True):
        np.testing.assert_array_equal(first(True, plain_rgb), first(False, plain_rgb))
    assert np.any(first(False, False) != first(False, True))
