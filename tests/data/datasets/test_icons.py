"""The data set icons, built from a miniature of its package: what its splits promise, its images and captions."""

import argparse
import collections
import csv
import io
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from cbalign.cli import data as data_command
from cbalign.data.datasets import emoji
from cbalign.data.datasets.catalogue import prepare
from cbalign.data.datasets.official import icon_rendering, icon_splits
from cbalign.data.datasets.official.icon_captions import concept_key
from cbalign.data.records import open_records
from cbalign.errors import UserError
from tests.data.datasets import icon_miniature as mini

STYLES = {
    "val_style_mono": {"bi"},
    "val_style_color": {"marketeq"},
    "test_style_mono": {"iconoir"},
    "test_style_color": {"flat-color-icons"},
}
TRAINED = {*(f"{author}-set" for author in mini.AUTHORS), "anna-old"}


@pytest.fixture(scope="module", autouse=True)
def few_concepts():
    """Two concepts are held out for testing and one for validation; the accordion is held out by `emoji`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(icon_splits, "HELD_OUT", {"val": 1, "test": 2})
        # Reading the images of `emoji` takes a quarter of a minute; test_emoji.py compares with its splits.
        patch.setattr(emoji, "held_out_concepts", lambda: {"\U0001fa97"})
        yield


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return mini.write_package(tmp_path_factory.mktemp("icons") / "package")


@pytest.fixture(scope="module")
def data_dir(package, tmp_path_factory):
    """Both variants, built by two processes."""
    folder = tmp_path_factory.mktemp("built")
    for name in ("icons", "icons/emoji"):
        prepare(name, str(folder), manual_dir=str(package), workers=2)
    return folder


@pytest.fixture(scope="module")
def splits(data_dir):
    """{split: {name: record}}, read with TFDS alone; the emoji variant is the split "emoji"."""
    found = {}
    for variant in ("64px", "emoji"):
        builder = tfds.builder_from_directory(data_dir / "icons" / variant / "1.0.0")
        for split in builder.info.splits:
            stored = builder.as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()})
            records = {record["name"].decode(): record for record in tfds.as_numpy(stored)}
            found["emoji" if variant == "emoji" else split] = records
    return found


def pixels(record):
    image = Image.open(io.BytesIO(record["image"]))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))


def captions(record):
    return [caption.decode() for caption in record["captions"]]


def words(name):
    """The words of a name, in any order, singular: what a concept is, spelled out for this package."""
    singular = {"dogs": "dog"}
    return frozenset(singular.get(word, word) for word in name.split("/")[-1].replace("-", " ").split())


def sets_of(records):
    return {name.split("/")[0] for name in records}


def test_families_are_held_out(splits):
    assert set(splits) == {"train", "val_concept", "test_concept", "emoji", *STYLES}
    assert sets_of(splits["train"]) == TRAINED
    for split, expected in STYLES.items():
        assert sets_of(splits[split]) == expected
    assert sets_of({**splits["val_concept"], **splits["test_concept"]}) <= TRAINED


def test_concepts_are_held_out_everywhere(splits):
    held_out = {words(name) for split in ("val_concept", "test_concept") for name in splits[split]}
    assert len(splits["test_concept"]) == 2 and len(splits["val_concept"]) == 1 and len(held_out) == 3
    others = [name for split, records in splits.items() if "concept" not in split for name in records]
    assert not held_out & {words(name) for name in others}
    # Emoji names other sources show, and "paper clip", which one set spells as one word.
    assert not held_out & {words(name) for name in ("cat", "dog", "tree", "sun", "paper clip")}
    assert held_out <= {words(name) for name in mini.COMMON}


def test_styles_are_tested_on_seen_concepts(splits):
    seen = {words(name) for name in splits["train"]}
    for split in STYLES:
        assert splits[split] and {words(name) for name in splits[split]} <= seen
    assert "iconoir/unknown-thing" not in splits["test_style_mono"]


def test_no_image_is_in_two_records(splits):
    places = collections.defaultdict(list)
    for split, records in splits.items():
        for name, record in records.items():
            places[pixels(record).tobytes()].append((split, name))
    assert max(map(len, places.values())) == 1
    # Drawn alike by a trained family and a held-out one, and by two held-out ones.
    assert "iconoir/dark-block" not in splits["test_style_mono"]
    assert "iconoir/sun" in splits["test_style_mono"] and "bi/sun-two" not in splits["val_style_mono"]


def test_a_concept_and_a_caption_are_unique_in_an_evaluation_split(splits):
    for split, records in splits.items():
        if split not in ("train", "emoji"):
            ids = [int(record["id"]) for record in records.values()]
            owners = collections.Counter(caption for record in records.values() for caption in captions(record))
            assert len(set(ids)) == len(ids) and max(owners.values()) == 1


def test_the_same_concept_has_the_same_id_in_every_split(splits):
    numbers = collections.defaultdict(set)
    for records in splits.values():
        for name, record in records.items():
            if name.split("/")[1] in ("cat", "dog", "dogs"):
                numbers["dog" if "dog" in name else "cat"].add(int(record["id"]))
    assert {len(found) for found in numbers.values()} == {1} and numbers["cat"] != numbers["dog"]


def test_what_is_left_out(splits, data_dir, package):
    names = {name for records in splits.values() for name in records}
    sets = sets_of(names)
    assert not sets & {"cib", "bxl", "devicon", "retired", "greedy", "rigid", "flag", "twemoji", "emojione"}
    assert not sets & {"emojione-v1", "unlisted"}
    gone = ("secret", "empty", "broken", "1f600", "a", "github", "waving-hand-dark-skin-tone", "moved")
    assert not names & {f"anna-set/{name}" for name in gone}
    report = json.loads((data_dir / "icons" / "64px" / "1.0.0" / "icons_report.json").read_text())
    counts = {reason: entry["icons"] for reason, entry in report["left_out"].items()}
    assert report["unlisted"] == ["unlisted"] and report["package"] == "0.0.1"
    assert counts["hidden icon"] == 1 and counts["hidden set"] == 1 and counts["alias that turns its icon"] == 1
    # cib and bxl have two each; one github is elsewhere, and one icon has the category Social Media.
    assert counts["logos and brands"] == 6 and counts["programming icons"] == 1
    assert counts["licence forbids commerce or derivatives"] == 2 and counts["flags named by country codes"] == 2
    assert counts["blank"] == 1 and counts["cannot be rendered"] == 1 and counts["no word in its name"] == 2
    assert counts["skin tone"] == 2 and counts["emoji of a vendor held out by the data set emoji"] == 3
    total = sum(len(json.loads(file.read_text())["icons"]) for file in (package / "json").glob("*.json"))
    turned, unlisted = 1, 1
    assert len(names) - len(splits["emoji"]) + sum(counts.values()) - turned + unlisted + len(splits["emoji"]) == total


def test_emoji_leave_out_what_the_data_set_emoji_holds_out(splits):
    """By name, and by the code points that one set gives for another name."""
    assert set(splits["emoji"]) == {"noto/penguin", "openmoji/rock-cairn"}
    assert captions(splits["emoji"]["noto/penguin"]) == emoji.phrases("\U0001f427")
    assert captions(splits["emoji"]["openmoji/rock-cairn"]) == ["rock cairn"]


def test_captions(splits):
    train = splits["train"]
    assert captions(train["anna-set/house-outline"]) == ["house", "home", "dwelling", "house, buildings"]
    assert captions(train["anna-set/house-24-solid"]) == ["house"]
    # One record for one drawing, with the names that it has in both sets.
    assert captions(train["anna-set/cat"]) == ["cat", "feline"] and "anna-old/feline" not in train
    assert captions(train["anna-set/black-square"]) == ["black square", "filled box"]


def test_images(splits):
    train = splits["train"]
    assert {pixels(record).shape for records in splits.values() for record in records.values()} == {(64, 64, 3)}
    assert (pixels(train["anna-set/black-square"]) == 0).all()
    # Half as wide as high: centred on white, and what lies outside its box does not show.
    tall = pixels(train["anna-set/tall"])
    assert (tall[:, :16] == 255).all() and (tall[:, 48:] == 255).all() and (tall[:, 16:48] == 0).all()
    assert (pixels(train["anna-set/appearing"])[:, :32] == 0).all()
    for records in splits.values():
        for record in records.values():
            image = pixels(record).astype(int)
            colored = np.ptp(image, axis=2).max() > 24
            assert record["group"] == (b"color" if colored else b"mono")


def test_random_drawings_against_their_source(splits):
    """Rectangles at whole multiples of a pixel's 24/64: compared inside them, where no edge is blended."""
    record = splits["test_style_color"]["flat-color-icons/cat"]
    image, expected = pixels(record), np.zeros((64, 64), bool)
    body = mini.drawing("flat", "cat", color="#e02020")
    for rectangle in body.split("/>")[:-1]:
        x, y, width, height = (float(part.split('"')[1]) for part in rectangle.split(" ")[1:5])
        left, top, right, bottom = (64 / 24 * edge for edge in (x, y, x + width, y + height))
        expected[int(np.ceil(top)) : int(bottom), int(np.ceil(left)) : int(right)] = True
    assert expected.sum() > 20 and (image[expected] == (0xE0, 0x20, 0x20)).all()


def test_the_table_of_licences(data_dir, splits):
    text = (data_dir / "icons" / "64px" / "1.0.0" / "licences.tsv").read_text()
    rows = {row["set"]: row for row in csv.DictReader(io.StringIO(text), delimiter="\t")}
    used = {name.split("/")[0] for split, records in splits.items() if split != "emoji" for name in records}
    assert set(rows) == used
    assert rows["anna-set"]["author"] == "anna" and rows["anna-set"]["licence"] == "MIT"
    counts = collections.Counter(
        name.split("/")[0] for split, records in splits.items() if split != "emoji" for name in records
    )
    assert {name: int(row["images"]) for name, row in rows.items()} == counts


def test_a_mixture_reads_both(data_dir, splits):
    records = open_records("captions", "icons+icons/emoji*2", "train", str(data_dir))
    assert {name.split("/")[0] for name in records.names} == TRAINED | {"noto", "openmoji"}
    # With the ids that the evaluation splits have, from which the baselines learn.
    ids = dict(zip(records.names, records.columns["id"].tolist()))
    assert ids["anna-set/cat"] == int(splits["test_style_mono"]["iconoir/cat"]["id"])
    assert len(open_records("captions", "icons+icons/emoji", "test_concept", str(data_dir), missing="skip")) == 2


def test_rendered_images_are_removed_once_both_are_built(package, tmp_path, data_dir, capsys):
    prepare("icons/32px", str(tmp_path), manual_dir=str(package))
    assert "rendered_32px is kept until icons/emoji_32px" in capsys.readouterr().out
    assert (tmp_path / "icons" / "rendered_32px" / "noto-000.png").is_file()
    assert {path.name for path in (data_dir / "icons").iterdir()} == {"64px", "emoji"}


def test_another_size(package, tmp_path):
    builder = prepare("icons/32px", str(tmp_path), manual_dir=str(package))
    record = next(iter(tfds.as_numpy(builder.as_dataset(split="train"))))
    assert record["image"].shape == (32, 32, 3)


def test_an_interrupted_rendering_resumes(package, tmp_path, monkeypatch, data_dir, capsys):
    rendered, original = [], icon_rendering._render_part

    def interrupted(job):
        if len(rendered) == 4:
            raise KeyboardInterrupt
        rendered.append(job.name)
        return original(job)

    monkeypatch.setattr(icon_rendering, "_render_part", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare("icons", str(tmp_path), manual_dir=str(package))
    first = list(rendered)
    rendered.clear()
    monkeypatch.setattr(icon_rendering, "_render_part", lambda job: rendered.append(job.name) or original(job))
    prepare("icons", str(tmp_path), manual_dir=str(package))
    assert len(first) == 4 and not set(first) & set(rendered) and "resuming" in capsys.readouterr().out
    files = "icons-train.tfrecord-00000-of-00001", "icons-test_concept.tfrecord-00000-of-00001"
    for file in files:
        one, other = (folder / "icons" / "64px" / "1.0.0" / file for folder in (tmp_path, data_dir))
        assert one.read_bytes() == other.read_bytes()


def command(*arguments):
    parser = argparse.ArgumentParser()
    data_command.add_arguments(parser)
    return data_command.run(parser.parse_args([str(argument) for argument in arguments]))


def test_the_commands(package, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command("build", "icons", f"--manual-dir={package}", f"--data-dir={tmp_path}", "--workers=1")
    out = capsys.readouterr().out
    assert (
        "left out         2 icons: programming" not in out and "icons: programming icons (such as devicon/cat)" in out
    )
    assert "test_concept            2 records" in out
    command("show", "icons", f"--data-dir={tmp_path}")
    out = capsys.readouterr().out
    assert "\ntest_style_color: " in out and "group                 color 100.0%" in out
    assert Image.open(tmp_path / "icons-train.png").width > 200
    with pytest.raises(UserError, match="icons has not been built"):
        prepare("icons", str(tmp_path / "elsewhere"))
    assert "npm pack @iconify/json" in capsys.readouterr().err
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match="holds none of the .*files of icons"):
        prepare("icons", str(tmp_path / "elsewhere"), manual_dir=str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    "one, other, same",
    [("dog house", "house dog", True), ("dogs", "dog", True), ("bus", "bu", False), ("glass", "glas", False)],
)
def test_concepts_are_words_in_any_order(one, other, same):
    assert (concept_key(one) == concept_key(other)) == same
