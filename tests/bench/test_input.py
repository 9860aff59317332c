"""The benchmark of the input pipeline: its peer makes the same views, its images are of COCO's size, its sums are right."""

import io
import json
import random

import numpy as np
import pytest
from PIL import Image, ImageFilter

tf = pytest.importorskip("tensorflow")

from cbalign.__main__ import main
from cbalign.bench import pil_input
from cbalign.bench.input import cores_per_host, made_up_jpegs
from cbalign.data.augment import views

SIZE = 96


@pytest.fixture(scope="module")
def image():
    (jpeg,) = made_up_jpegs(1)
    return Image.open(io.BytesIO(jpeg)).convert("RGB").resize((SIZE, SIZE), Image.BICUBIC)


def test_images_are_of_cocos_size():
    jpegs = made_up_jpegs(3)
    assert all(Image.open(io.BytesIO(x)).size == (640, 480) for x in jpegs)
    assert np.mean([len(x) for x in jpegs]) == pytest.approx(163_000, rel=0.1)
    assert len(set(jpegs)) == 3


@pytest.mark.parametrize("name", views.OPERATIONS)
def test_each_operation_of_the_peer_is_the_pipelines(name, image):
    image = image.filter(ImageFilter.GaussianBlur(4))
    amount, signed = views.operation_amounts(7).get(name, (0.0, False))
    for sign in (1, -1) if signed else (1,):
        # PIL places pixel centres at halves, the pipeline (as OpenCV) at whole numbers: half a pixel apart at most.
        ours = views.OPERATIONS[name](tf.constant(np.asarray(image)), sign * amount).numpy()
        theirs = pil_input.PIL_OPERATIONS[name](image, sign * amount)
        assert np.abs(ours.astype(float) - np.asarray(theirs, float)).mean() <= 1.5, name


def test_the_peers_crop_keeps_the_share_asked_for(image):
    random.seed(0)
    # The whole of a square image at the only ratio is the image.
    whole = pil_input.random_resized_crop(image, SIZE, (1.0, 1.0), ratio=(1.0, 1.0))
    assert np.array_equal(np.asarray(whole), np.asarray(image))
    ramp = Image.fromarray(np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (200, 200, 3)).copy())
    for _ in range(20):
        view = np.asarray(pil_input.random_resized_crop(ramp, 50, (0.25, 0.25), ratio=(1.0, 1.0)), float)[..., 0]
        # A quarter of the area is half of the side: 100 grey levels from left to right, less half a pixel at each end.
        assert view[25, -1] - view[25, 0] == pytest.approx(98, abs=2)


def test_host_cores_by_hand():
    # Four chips of 275 TFLOP/s at 40 % make 440 TFLOP/s: 1,000 pairs a second of 440 GFLOP.
    found = cores_per_host(440e9, 50.0, utilisation=0.4)
    assert found == {"v4_host_pairs_per_second": pytest.approx(1000), "v4_host_cores": pytest.approx(20)}


@pytest.mark.slow
def test_the_command_ends_in_one_json_object(capsys):
    command = [
        "bench",
        "input",
        "--config=configs/emoji_scratch.py",
        "--no-peer",
        "--seconds=0.5",
        "--config.data.second_view=True",
        "--config.train.batch_size=8",
        "--config.itm.group_size=8",
    ]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["views"] == 2 and found["pairs_per_second"] > 0 and "ratio_to_peer" not in found
    assert found["pairs_per_second_per_core"] == pytest.approx(found["pairs_per_second"] / found["cores"])
    assert found["v4_host_cores"] == pytest.approx(
        found["v4_host_pairs_per_second"] / found["pairs_per_second_per_core"]
    )


@pytest.mark.parametrize("flag", ["--seconds=0", "--utilisation=1.5"])
def test_mistakes_are_named(flag, capsys):
    assert main(["bench", "input", flag]) == 2
    assert flag.split("=")[0] in capsys.readouterr().err
