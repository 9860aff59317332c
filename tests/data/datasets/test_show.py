"""Statistics and contact sheets of built data sets."""

import argparse

import numpy as np
import pytest
from PIL import Image

from cbalign.cli import data as data_command
from cbalign.data.datasets.catalogue import prepare
from cbalign.data.datasets.official import miniature as mini
from cbalign.data.show import contact_sheet, sample, statistics_lines
from cbalign.errors import UserError


def command(*words):
    parser = argparse.ArgumentParser()
    data_command.add_arguments(parser)
    return data_command.run(parser.parse_args([str(word) for word in words]))


def encoded(tmp_path, colour, size):
    Image.new("RGB", size, colour).save(tmp_path / "one.png")
    return (tmp_path / "one.png").read_bytes()


def test_statistics_of_captions(tmp_path):
    wide, tall = encoded(tmp_path, "red", (64, 16)), encoded(tmp_path, "blue", (16, 48))
    records = [
        {"image": wide, "captions": np.array([b"One two.", b"three"])},
        {"image": tall, "captions": np.array([b"four five six seven"])},
    ]
    found = {line[:22].strip(): line[22:] for line in statistics_lines(records, ["image"])}
    assert found["image width"] == "16 to 64, median 40, 95 % up to 64 pixels"
    assert found["image height"] == "16 to 48, median 32, 95 % up to 48 pixels"
    assert found["formats"] == "PNG RGB 100.0%"
    assert found["texts per record"] == "1 to 2, median 2, 95 % up to 2"
    assert found["words per text"] == "1 to 4, median 2, 95 % up to 4 after cleaning"


def test_statistics_of_tasks(tmp_path):
    image = encoded(tmp_path, "red", (8, 8))
    records = [{"image": image, "sentence": b"a", "label": label} for label in (2, 2, 1, 0)]
    assert "label                 2 50.0%, 1 25.0%, 0 25.0%" in statistics_lines(records, ["image"])
    records = [
        {"image": image, "question": b"what", "answers": np.array(answers, object), "answer_type": b"other"}
        for answers in ([b"no", b"yes", b"yes"], [b"yes"], [b"two"], [])
    ]
    found = statistics_lines(records, ["image"])
    assert "top answers           yes 66.7%, two 33.3%" in found and "answer_type           other 100.0%" in found


def test_unreadable_images_are_counted(tmp_path):
    records = [{"image": data, "captions": np.array([b"a"])} for data in (encoded(tmp_path, "red", (9, 8)), b"no")]
    assert "formats               PNG RGB 50.0%, unreadable 50.0%" in statistics_lines(records, ["image"])


def test_the_sheet_shows_every_image(tmp_path):
    colours = ["red", "blue", "lime", "black", "yellow"]
    records = [{"image": encoded(tmp_path, colour, (30, 20)), "captions": np.array([b"text"])} for colour in colours]
    sheet = contact_sheet(records, ["image"])
    counts = {colour: count for count, colour in sheet.getcolors(1 << 20)}
    for colour, expected in zip(
        ("red", "blue", "lime", "yellow"), ((255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 255, 0))
    ):
        assert counts[expected] >= 240 * 160 * 0.95, colour
    # Two rows, with text below: dark pixels outside the images.
    assert sheet.size == (4 * 248 + 8, 2 * 316) and counts[0, 0, 0] > 240 * 150


def test_a_broken_image_and_a_pair_on_the_sheet(tmp_path):
    pair = {"left": encoded(tmp_path, "blue", (20, 20)), "right": b"broken", "sentence": b"Both.", "label": 1}
    sheet = np.asarray(contact_sheet([pair], ["left", "right"]))
    blue, red = (np.all(sheet == colour, axis=-1) for colour in ((0, 0, 255), (255, 0, 0)))
    assert blue.any() and red.any() and np.where(blue)[1].max() < np.where(red)[1].min()


def test_a_sample_is_spread_over_the_split(tfds_dir):
    builder = prepare("scenes/tiny", str(tfds_dir))
    some = [record["name"] for record in sample(builder, "train", 32)]
    every = [record["name"] for record in sample(builder, "train", 1000)]
    places = [every.index(name) for name in some]
    assert len(every) == 256 and len(some) == len(set(some)) == 32
    assert min(places) < 16 and max(places) > 240 and max(np.diff(sorted(places))) <= 24


@pytest.mark.parametrize("name", ["coco_karpathy", "nlvr2", "vqa_v2"])
def test_the_command(tmp_path, capsys, name, monkeypatch):
    if name == "coco_karpathy":
        mini.coco_images(tmp_path / "manual")
        mini.coco_karpathy(tmp_path / "manual")
    else:
        {"nlvr2": mini.nlvr2, "vqa_v2": mini.vqa}[name](tmp_path / "manual")
    prepare(name, str(tmp_path / "data"), manual_dir=str(tmp_path / "manual"))
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    command("show", name, f"--data-dir={tmp_path / 'data'}")
    out = capsys.readouterr().out
    for split in ("train", "val", "test"):
        assert f"\n{split}: " in out
        assert Image.open(tmp_path / f"{name}-{split}.png").width > 200
    assert "image width           48 to 48" in out


@pytest.mark.parametrize(
    "words, message",
    [
        (["scenes/tiny", "--split=none"], "no split none: name one of"),
        (["scenes/tiny", "--sample=0"], "1 or more"),
        (["scenes/tiny", "--out=a.png"], "3 splits"),
        (["nothing"], "nothing is not a data set"),
        (["scenes/tiny", "--split=val", "--out=/proc/none/a.png"], "cannot write"),
    ],
)
def test_mistakes_are_named(tfds_dir, words, message):
    with pytest.raises(UserError, match=message):
        command("show", *words, f"--data-dir={tfds_dir}")
