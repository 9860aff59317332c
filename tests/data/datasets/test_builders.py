"""Builders of data sets from official files: the records are compared with the files value by value."""

import json
import re

import numpy as np
import pytest
import tensorflow_datasets as tfds

from cbalign.__main__ import main
from cbalign.data.datasets import catalogue
from cbalign.data.datasets.catalogue import find_builder, prepare
from cbalign.data.datasets.official import miniature as mini
from cbalign.data.datasets.official.build_report import text_lines
from cbalign.data.datasets.official.vqa_v2 import frequent_answers
from cbalign.data.records import open_records
from cbalign.errors import UserError


@pytest.fixture
def manual(tmp_path):
    folder = tmp_path / "manual"
    folder.mkdir()
    return folder


def built(name, manual, **options):
    """A builder made from the folder alone, without this project's code."""
    builder = prepare(name, str(manual.parent / "data"), manual_dir=str(manual), **options)
    return tfds.builder_from_directory(builder.data_path)


def records(builder, split):
    """Records of a split, images as stored."""
    images = [name for name, feature in builder.info.features.items() if isinstance(feature, tfds.features.Image)]
    decoders = {name: tfds.decode.SkipDecoding() for name in images}
    return list(tfds.as_numpy(builder.as_dataset(split=split, decoders=decoders)))


def by_id(builder, split):
    return {int(record["id"]): record for record in records(builder, split)}


def texts(values):
    return [value.decode() for value in values]


def test_coco_from_karpathys_file(manual):
    images = mini.coco_images(manual)
    mini.coco_karpathy(manual / "annotations")
    builder = built("coco_karpathy", manual)
    splits = {split: by_id(builder, split) for split in builder.info.splits}
    assert {split: set(found) for split, found in splits.items()} == {
        "train": {9, 25, 30},
        "val": {42},
        "test": {73, 74},
    }
    for found in splits.values():
        for number, record in found.items():
            assert record["image"] == images[number]
            assert texts(record["captions"]) == mini.coco_captions(number)
            assert re.fullmatch(rf"COCO_\w+2014_{number:012d}.jpg", record["name"].decode())


def test_coco_from_albefs_lists(manual):
    images = mini.coco_images(manual / "images")
    mini.coco_albef(manual)
    builder = built("coco_karpathy", manual)
    seen = {}
    for split in ("train", "val", "test"):
        for record in records(builder, split):
            number = int(record["name"].decode()[-16:-4])
            assert record["image"] == images[number] and texts(record["captions"]) == mini.coco_captions(number)
            seen[int(record["id"])] = (number, split)
    assert sorted(seen) == list(range(6))
    assert dict(seen.values()) == {9: "train", 25: "train", 30: "train", 42: "val", 73: "test", 74: "test"}


def test_coco_images_by_their_names_of_2017(manual):
    mini.coco_karpathy(manual)
    images = {number: mini.write_image(manual / "train2017" / f"{number:012d}.jpg", number) for number, *_ in mini.COCO}
    assert by_id(built("coco_karpathy", manual), "val")[42]["image"] == images[42]


def test_a_split_without_its_list_is_noted(manual, capsys):
    mini.coco_images(manual)
    mini.coco_albef(manual)
    (manual / "coco_karpathy_val.json").unlink()
    assert set(built("coco_karpathy", manual).info.splits) == {"train", "test"}
    assert "no coco_karpathy_val.json" in capsys.readouterr().out


def test_flickr30k(manual):
    images = mini.flickr30k(manual)
    builder = built("flickr30k_karpathy", manual)
    assert builder.info.splits["train"].num_examples == 2
    (record,) = records(builder, "val")
    # Karpathy's running number: Flickr's do not fit 32 bits.
    assert record["id"] == 2 and record["name"] == b"7922678762.jpg" and record["image"] == images[7922678762]


def genome_captions(image, least):
    """What is kept of an image where regions of `least` pixels and more are: all are ten pixels high."""
    first = [f"A large region of {image}."]
    return first + [f"small part {place} of image {image}" for place in range(1, 21) if 10 * place >= least]


def test_visual_genome_filters_as_albefs_author_describes(manual, capsys):
    images = mini.visual_genome(manual)
    mini.coco_karpathy(manual / "karpathy")
    mini.flickr30k(manual / "karpathy")
    mini.refcoco(manual)
    found = by_id(built("visual_genome", manual), "train")
    assert set(found) == {1, 4} and found[4]["image"] == images[4]
    printed = capsys.readouterr().out
    assert "3 skipped: in the evaluation splits of COCO, RefCOCO+ or Flickr30K (such as 2.jpg)" in printed
    # 769,000 / 108,077 captions an image, of five images: the 36 of the largest regions of images 1 and 4. Each has one
    # of 900 pixels and one each of 200, 190, 180, ...; two of 40 pixels are the 35th and 36th.
    for image, record in found.items():
        assert texts(record["captions"]) == genome_captions(image, 40)
    assert (
        "region_descriptions.json: 125 descriptions; left out: 75 of images in evaluation sets, 2 blank, 2 repeated for "
        "an image, 4 of fewer than 4 words, 6 of regions smaller than 40 pixels; 36 remain" in printed
    )


def test_visual_genome_alone_keeps_what_it_cannot_check_with_a_note(manual, capsys):
    mini.visual_genome(manual)
    found = by_id(built("visual_genome", manual), "train")
    # Of five images 36 sentences again: the large one of each, and 31 of 200 pixels down to 140 or 150.
    assert set(found) == {1, 2, 3, 4, 5}
    for image, record in found.items():
        assert texts(record["captions"]) == genome_captions(image, 140)
    printed = capsys.readouterr().out
    assert (
        "no image_data.json" not in printed and "no dataset_coco.json, dataset_flickr30k.json, refcoco+_val" in printed
    )
    assert "images of the evaluation sets of COCO, Flickr30K and RefCOCO+ may be included" in printed


def test_visual_genome_from_albefs_list(manual, capsys):
    """Taken as it is, in the images' order, with images of evaluation sets and short sentences."""
    images = mini.visual_genome(manual)
    mini.vg_albef(manual / "lists")
    found = by_id(built("visual_genome", manual), "train")
    assert {number: texts(record["captions"]) for number, record in found.items()} == {
        1: ["the sky", "two of 1"],
        4: ["a part of 4"],
    }
    assert found[1]["image"] == images[1] and found[1]["name"] == b"1.jpg"
    assert "vg.json: 3 captions of 2 images" in capsys.readouterr().out


def test_captions_are_counted_and_compared(manual, capsys):
    mini.visual_genome(manual)
    mini.vg_albef(manual)
    mini.coco_images(manual)
    mini.coco_karpathy(manual)
    for name in ("visual_genome", "coco_karpathy"):
        main(["data", "build", name, f"--manual-dir={manual}", f"--data-dir={manual.parent / 'data'}"])
    printed = capsys.readouterr().out
    assert re.search(r"train +3 captions  warning: about 769,000 are published \(-768,997\)", printed)
    assert re.search(r"train +15 captions\n", printed) and re.search(r"test +10 captions\n", printed)
    assert text_lines({"train": 768_000}, {"train": 769_000})[0].endswith(
        "captions  about 769,000 are published (-1,000)"
    )


@pytest.mark.parametrize("write", [mini.pair_folder, mini.pair_tar])
def test_img2dataset_output(manual, write):
    write(manual / "training", "00000", range(3))
    write(manual / "training", "00001", range(10000, 10002))
    write(manual / "validation", "00000", [3])
    builder = built("cc3m", manual)
    train = by_id(builder, "train")
    assert [texts(train[number]["captions"]) for number in sorted(train)] == [
        [f"pair {number}"] for number in (0, 1, 2, 10000, 10001)
    ]
    (record,) = records(builder, "val")
    expected = mini.pair_files(3, manual.parent)["000000003.jpg"]
    assert record["image"] == expected and texts(record["captions"]) == ["pair 3"]
    assert len({record["name"] for record in train.values()}) == 5


def test_a_data_set_without_validation_puts_everything_in_train(manual):
    mini.pair_tar(manual / "val_and_more", "00000", range(2))
    assert set(built("sbu", manual).info.splits) == {"train"}


def test_a_truncated_tar_is_used_up_to_its_end(manual, capsys):
    path = mini.pair_tar(manual, "00000", range(4))
    third = mini.pair_files(2, manual.parent)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(third["000000002.jpg"]) + 50])
    builder = built("sbu", manual, max_bad=0.5)
    assert sorted(text for record in records(builder, "train") for text in texts(record["captions"])) == [
        "pair 0",
        "pair 1",
    ]
    assert "is truncated" in capsys.readouterr().out


def test_sbu_from_albefs_list(manual):
    """The list has the paths of another machine, and one of the images no longer exists."""
    data = [mini.write_image(manual / "sbu" / "images" / f"{n}.jpg", n) for n in range(8)]
    entries = [{"image": f"/export/share/datasets/vision/sbu/images/{n}.jpg", "caption": f"pair {n}"} for n in range(9)]
    mini.write_json(manual / "sbu.json", entries)
    with pytest.raises(UserError, match="1 of 9 records of the split train are unusable.*--max-bad"):
        built("sbu", manual)
    found = by_id(built("sbu", manual, max_bad=0.2), "train")
    assert {number: record["image"] for number, record in found.items()} == dict(enumerate(data))


def test_vqa(manual):
    mini.vqa(manual)
    mini.vg_questions(manual)
    builder = built("vqa_v2", manual)
    counts = {split: info.num_examples for split, info in builder.info.splits.items()}
    assert counts == {"train": 12, "val": 4, "test": 1, "vg": 1}
    record = {int(record["question_id"]): record for record in records(builder, "train")}[9003]
    assert record["image_id"] == 9 and record["question"] == b"What is 9003?"
    assert texts(record["answers"]) == mini.ANSWERS
    assert (record["question_type"], record["answer_type"]) == (b"what is", b"other")
    (secret,), (genome,) = records(builder, "test"), records(builder, "vg")
    assert len(secret["answers"]) == 0 and secret["question_id"] == 1000 and secret["answer_type"] == b""
    assert (genome["image_id"], genome["question_id"]) == (-1, -986769)
    assert texts(genome["answers"]) == ["dark green"]


@pytest.mark.parametrize("questions, expected", [(14, ["net", "yes"]), (12, [])])
def test_vqa_lists_the_answers_agreed_upon_nine_times(manual, questions, expected):
    """Each of the two is the agreed answer of half of the questions: 7 and 2 in train and val, or 6 and 2."""
    mini.vqa(manual, questions=questions)
    builder = built("vqa_v2", manual)
    assert json.loads((builder.data_path / "answer_list.json").read_text()) == expected


def test_frequent_answers_come_first():
    assert frequent_answers({"a": 8, "b": 9, "d": 9, "c": 30}) == ["c", "b", "d"]


def test_vqa_takes_a_given_list(manual):
    mini.vqa(manual)
    mini.write_json(manual / "answer_list.json", ["yes", "no", "net"])
    builder = built("vqa_v2", manual)
    assert json.loads((builder.data_path / "answer_list.json").read_text()) == ["yes", "no", "net"]


def test_nlvr2(manual):
    mini.nlvr2(manual)
    builder = built("nlvr2", manual)
    for place, split in enumerate(("train", "val", "test")):
        found = {record["identifier"].decode()[-1]: record for record in records(builder, split)}
        assert {side: int(record["label"]) for side, record in found.items()} == {"0": 0, "1": 1}
        name = {"train": "train", "val": "dev", "test": "test1"}[split]
        assert found["1"]["sentence"].decode() == f"Sentence 1 of {name}."
        left, right = (
            mini.write_image(manual / "scratch", 2 * place + side, kind=kind)
            for side, kind in enumerate(("PNG", "JPEG"))
        )
        assert found["1"]["image_left"] == left and found["1"]["image_right"] == right


def test_snli_ve(manual):
    images = mini.flickr30k(manual)
    mini.snli_ve(manual)
    builder = built("snli_ve", manual)
    found = {record["sentence"].decode(): record for record in records(builder, "val")}
    labels = {"This is entailment.": 2, "This is neutral.": 1, "This is contradiction.": 0}
    assert {text: int(record["label"]) for text, record in found.items()} == labels
    record = found["This is neutral."]
    assert record["image"] == images[7922678762] and record["image_id"] == b"7922678762"
    assert record["pair_id"] == b"7922678762.jpg#0r1n"


def test_tfds_alone_builds_the_same(manual, tmp_path):
    mini.coco_images(manual)
    mini.coco_karpathy(manual)
    ours = built("coco_karpathy", manual)
    builder = find_builder("coco_karpathy", str(tmp_path / "other"))
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(manual)))
    for split in ("train", "val", "test"):
        left, right = by_id(ours, split), by_id(builder, split)
        assert set(left) == set(right)
        for number in left:
            assert left[number]["image"] == right[number]["image"]
            np.testing.assert_array_equal(left[number]["captions"], right[number]["captions"])


def test_the_rest_of_the_project_reads_it(manual):
    mini.coco_images(manual)
    mini.coco_karpathy(manual)
    built("coco_karpathy", manual)
    split = open_records("captions", "coco_karpathy", "train", str(manual.parent / "data"))
    assert sorted(split.columns["id"].tolist()) == [9, 25, 30] and len(split.texts[0]) == 5


@pytest.mark.parametrize("name", catalogue.official_names())
def test_without_files_the_instructions_are_printed(name, manual, capsys):
    with pytest.raises(UserError, match=f"none of the annotation files of {name}"):
        prepare(name, str(manual.parent / "data"), manual_dir=str(manual))
    printed = capsys.readouterr().err
    assert f"cbalign data build {name} --manual-dir=FOLDER" in printed and re.search("[.](jpg|png|json)", printed)
    with pytest.raises(UserError, match="has not been built"):
        prepare(name, str(manual.parent / "data"))
    assert not (manual.parent / "data" / name / "1.0.0").exists()


@pytest.mark.parametrize(
    "content, message",
    [
        ("[1", "is not JSON"),
        ("[]", "does not hold a JSON object"),
        ('{"images": [{"split": "train"}]}', "field 'filename'"),
        ('{"images": 3}', "does not have the official format"),
        ("\xff".encode("latin1"), "is not JSON"),
    ],
)
def test_malformed_files_are_named(manual, content, message):
    (manual / "dataset_coco.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=f"dataset_coco.json.*{message}"):
        prepare("coco_karpathy", str(manual.parent / "data"), manual_dir=str(manual))


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", "snli_ve_dev.jsonl, line 2: not JSON"),
        ("3", "line 2: not a JSON object"),
        ('{"gold_label": "neutral"}', "the field 'Flickr30K_ID' is missing"),
        (
            '{"Flickr30K_ID": "1", "gold_label": "maybe", "sentence2": "x", "pairID": "y"}',
            "does not have the official format",
        ),
    ],
)
def test_malformed_lines_are_named(manual, line, message):
    good = {"Flickr30K_ID": "1", "gold_label": "neutral", "sentence2": "x", "pairID": "y"}
    (manual / "snli_ve_dev.jsonl").write_text(json.dumps(good) + "\n" + line + "\n")
    with pytest.raises(UserError, match=message):
        prepare("snli_ve", str(manual.parent / "data"), manual_dir=str(manual))


def test_a_split_without_any_image_is_left_out(manual, tfds_dir):
    mini.nlvr2(manual)
    for image in (manual / "test1").iterdir():
        image.unlink()
    contents = find_builder("nlvr2").contents(str(manual))
    assert list(contents.splits) == ["train", "val"]
    assert "none of the images of 2 records is there: the split test is not built" in contents.notes
    builder = prepare("nlvr2", str(manual.parent / "data"), manual_dir=str(manual))
    assert sorted(builder.info.splits) == ["train", "val"]


@pytest.mark.parametrize("value", ["NaN", "null", '"nan"', "7", '{"tokens": ["a"]}', "[null]"])
def test_captions_that_are_none_are_counted(manual, value):
    mini.coco_images(manual)
    mini.coco_karpathy(manual)
    file = manual / "dataset_coco.json"
    # One of the captions of 9, and all of 25.
    text = re.sub(r'"raw": "Image 25 [^"]*"', f'"raw": {value}', file.read_text())
    file.write_text(re.sub(r'"raw": "Image 9 as person 2 [^"]*"', f'"raw": {value}', text))
    contents = find_builder("coco_karpathy").contents(str(manual))
    rows = contents.splits["train"]
    assert [name for names in rows.skipped.values() for name in names] == [mini.coco_name(25, "val2014")]
    assert sorted(len(row.values[0]) for row in rows.rows) == [4, 5]
    assert any("train: 1 texts left out: caption is" in note and "000000009" in note for note in contents.notes)
    assert not any("nan" in caption.lower() for row in rows.rows for caption in row.values[0])


@pytest.mark.parametrize("caption", [b'{"caption": NaN}', b'{"caption": null}', b'{"caption": {"x": 1}}', b'{"a": 1}'])
def test_captions_of_img2dataset_that_are_none(manual, caption):
    mini.pair_folder(manual, "00000", range(4))
    (manual / "00000" / "000000001.txt").unlink()
    (manual / "00000" / "000000001.json").write_bytes(caption)
    (manual / "00000" / "000000002.txt").write_text("None")
    for name in ("00001.tar.gz", "00000.parquet"):
        (manual / name).write_bytes(b"x")
    contents = find_builder("sbu").contents(str(manual))
    rows = contents.splits["train"]
    assert [row.values[0] for row in rows.rows] == [["pair 0"], ["pair 3"]]
    assert sorted(name for names in rows.skipped.values() for name in names) == ["00000/000000001", "00000/000000002"]
    assert any("1 .parquet file, 1 .tar.gz file" in note for note in contents.notes)


def test_linked_folders_are_read(manual, tmp_path):
    mini.pair_folder(tmp_path / "elsewhere", "00000", range(3))
    (manual / "linked").symlink_to(tmp_path / "elsewhere")
    assert len(find_builder("sbu").contents(str(manual)).splits["train"].rows) == 3
