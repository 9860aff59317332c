"""The check before a build: every kind of fault is found, counted and named."""

import argparse
import json

import pytest

from cbalign.cli import data as data_command
from cbalign.data.check import check_data_set, check_folder
from cbalign.data.datasets.official import miniature as mini
from cbalign.errors import UserError

LIMITS = {"workers": 2, "min_side": 25, "max_words": 6}


def command(*words):
    parser = argparse.ArgumentParser()
    data_command.add_arguments(parser)
    return data_command.run(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def coco(tmp_path):
    folder = tmp_path / "coco"
    mini.coco_images(folder)
    mini.coco_karpathy(folder)
    return folder


def path_of(coco, number):
    return next(coco.rglob(f"*{number:012d}.jpg"))


def names(report):
    """{kind of problem: numbers in the names of the images}."""
    return {kind: [int(name.split(".jpg")[0][-12:]) for name in found] for kind, found in report.problems.items()}


def test_sound_files_have_no_problems(coco):
    reports = check_data_set("coco_karpathy", str(coco), workers=1, min_side=36, max_words=30)
    assert {split: (r.listed, r.records, r.images, r.found, r.texts) for split, r in reports.items()} == {
        "train": (3, 3, 3, 3, 15),
        "val": (1, 1, 1, 1, 5),
        "test": (2, 2, 2, 2, 10),
    }
    assert all(not report.problems for report in reports.values())
    assert reports["val"].published == 5_000


def test_each_fault_is_found(coco):
    path_of(coco, 9).unlink()
    path_of(coco, 25).write_bytes(b"")
    data = path_of(coco, 30).read_bytes()
    path_of(coco, 30).write_bytes(data[: len(data) // 2])
    mini.write_image(path_of(coco, 42), 42, size=(200, 24))
    path_of(coco, 74).write_bytes(path_of(coco, 73).read_bytes())
    reports = check_data_set("coco_karpathy", str(coco), **LIMITS)
    del reports["train"].problems["too long"], reports["test"].problems["too long"]
    assert names(reports["train"]) == {"missing": [9], "empty file": [25], "broken": [30]}
    assert (reports["train"].listed, reports["train"].records, reports["train"].found) == (3, 1, 0)
    # Their captions have seven words once the full stop is deleted.
    assert set(reports["val"].problems) == {"too small", "too long"} and len(reports["val"].problems["too long"]) == 5
    assert names(reports["test"])["duplicated"] == [74] and reports["test"].found == 2


def test_an_image_in_two_splits_is_found(coco):
    path_of(coco, 73).write_bytes(path_of(coco, 9).read_bytes())
    problems = check_data_set("coco_karpathy", str(coco), workers=1, min_side=1, max_words=30)["test"].problems
    assert list(problems) == ["also in another split"] and problems["also in another split"][0].endswith("(train)")


@pytest.mark.parametrize("damage", ["end", "middle", "header", "text"])
def test_broken_images_of_every_kind(coco, damage):
    path = path_of(coco, 42)
    data = path.read_bytes()
    path.write_bytes(
        {"end": data[:-60], "middle": data[: len(data) // 2], "header": data[:20], "text": b"<html>404</html>"}[damage]
    )
    problems = check_data_set("coco_karpathy", str(coco), workers=1, min_side=1, max_words=30)["val"].problems
    assert list(problems) == ["broken"]


def test_images_within_a_tar(tmp_path):
    path = mini.pair_tar(tmp_path / "sbu", "00000", range(3))
    second = mini.pair_files(1, tmp_path)["000000001.jpg"]
    start = path.read_bytes().index(second)
    path.write_bytes(path.read_bytes().replace(second, bytes(len(second))))
    report = check_data_set("sbu", str(tmp_path / "sbu"), **LIMITS)["train"]
    assert (report.records, report.images, report.found) == (3, 3, 2)
    assert report.problems == {"broken": [f"{path}, byte {start}"]}


def test_the_fields_of_each_task_are_read(tmp_path):
    mini.vqa(tmp_path / "vqa")
    mini.nlvr2(tmp_path / "nlvr2")
    mini.flickr30k(tmp_path / "ve")
    mini.snli_ve(tmp_path / "ve")
    one_word = {"workers": 1, "min_side": 1, "max_words": 2}
    assert check_data_set("vqa_v2", str(tmp_path / "vqa"), **one_word)["test"].problems["too long"] == ["What is 1000?"]
    reports = check_data_set("nlvr2", str(tmp_path / "nlvr2"), **one_word)
    assert reports["val"].images == 2 and len(reports["val"].problems["too long"]) == 2
    reports = check_data_set("snli_ve", str(tmp_path / "ve"), **one_word)
    assert reports["test"].images == 1 and "This is neutral." in reports["test"].problems["too long"]


def test_your_own_folder(tmp_path):
    mini.write_image(tmp_path / "photos" / "a.jpg", 1)
    mini.write_image(tmp_path / "photos" / "b.png", 2, kind="PNG")
    (tmp_path / "captions.csv").write_text("image,caption\na.jpg,one\na.jpg,two\nb.png,\nc.jpg,three\n")
    report = check_folder(str(tmp_path / "photos"), str(tmp_path / "captions.csv"), **LIMITS)["all"]
    assert (report.listed, report.records, report.texts) == (3, 1, 2)
    assert report.problems == {"missing": ["c.jpg"], "no text": ["b.png"]}


def test_the_command_prints_and_writes(coco, tmp_path, capsys):
    path_of(coco, 9).unlink()
    command("check", "coco_karpathy", f"--manual-dir={coco}", f"--out={tmp_path / 'report.json'}")
    out = capsys.readouterr().out
    assert "train: 2 of 3 records, 113,287 published; 2 of 2 images readable; 10 texts" in out
    assert "missing" in out and "COCO_train2014_000000000009.jpg" in out
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["train"]["problems"] == {"missing": ["COCO_train2014_000000000009.jpg"]}


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "give either NAME"),
        (["sbu", "--images=."], "give either NAME"),
        (["--images=."], "needs --captions"),
        (["sbu"], "--manual-dir is needed"),
        (["emoji", "--manual-dir=."], "emoji cannot be checked: name one of cc3m"),
        (["sbu", "--manual-dir=.", "--workers=0"], "1 or more"),
        (["coco_karpathy", "--manual-dir=COCO", "--out=/proc/none/x"], "cannot write"),
    ],
)
def test_mistakes_are_named(coco, words, message):
    with pytest.raises(UserError, match=message):
        command("check", *(word.replace("COCO", str(coco)) for word in words))
