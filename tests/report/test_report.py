"""The page of a run of several tasks, finished and just begun."""

import dataclasses
import json
import math
import re
import shutil

import pytest
from PIL import Image

from cbalign.__main__ import main
from cbalign.config import to_json
from cbalign.errors import UserError
from cbalign.report import sections
from cbalign.report.history import read_history
from cbalign.report.page import write_report
from cbalign.runs.workdir import open_run
from tests.report.pages import STABILITY, VE_RESULT, VQA_RESULT, Page, result
from tests.tiny import tiny_config

URLS = re.compile(r"https?://[^\"'\s<>)]+").findall


def ids(text):
    return set(re.findall(r'\bid="([^"]+)"', text))


@pytest.mark.slow
def test_command_writes_the_page_and_its_pngs(workdir, capsys):
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "time": 17, "train/lo')  # cut off by a kill
    assert main(["report", f"--workdir={workdir}"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(workdir / "report.html")
    for name in ("losses", "gallery"):
        width, height = Image.open(workdir / "report" / f"{name}.png").size
        assert 1000 < width < 2500 and height > 500
    text = (workdir / "report.html").read_text()
    page = Page(text)
    assert not page.open and len(text) < 3_000_000
    # Not a thing is fetched from elsewhere; what plots refer to is their own.
    assert all(address.startswith(Page.SAFE) for address in page.addresses)
    assert all(address in ("http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink") for address in URLS(text))
    assert set(re.findall(r"url\((.)", text)) <= {"#"} and "script" not in page.tags and "@import" not in text
    assert all(anchor[1:] in ids(text) for anchor in page.addresses if anchor.startswith("#"))
    for expected in (
        "scenes/tiny test: 64 images",
        "scenes/tiny val: 64 images",
        "pixel nearest neighbour",
        "<b>77.77</b>",
        "<b>15.00</b>",
        "ITM &lt;is&gt; at its prior",
        "Recall on val",
        "Accuracy of matching",
        "Error of the plan",
        "Learning rate",
        "4 of 4",
        "pairs/s",
        "cpu device",
        "drawn at random with seed 0",
        "scenes/tiny test: drawn",
    ):
        assert expected in text, expected
    assert '"num_codes": 32' in page.text
    assert "contrastive + ITM" not in text  # a row without figures
    assert sum(title.startswith("Matching (itm), nats: itm ") for title in page.titles) == 1
    assert "<b>1.00</b>" not in text
    # Every section of a run of pretraining is there.
    for section in ("results", "examples", "confusion", "attention", "codes", "space", "losses", "course", "config"):
        assert f'<section id="{section}">' in text and f'href="#{section}"' in text, section
    assert all(title.strip() for title in page.titles)


@pytest.mark.slow
def test_same_run_same_page(workdir):
    pages = []
    for _ in range(2):
        write_report(open_run(workdir))
        pages.append([(workdir / name).read_bytes() for name in ("report.html", "report/gallery.png")])
    assert pages[0] == pages[1]


def test_a_run_that_has_just_begun(tiny_run, tmp_path):
    for name in ("config.json", "vocab.txt"):
        shutil.copy(tiny_run / name, tmp_path / name)
    text = write_report(open_run(tmp_path)).read_text()
    assert not Page(text).open
    for expected in (
        "No results yet",
        "No examples: no checkpoint",
        "No training metrics yet",
        "No evaluation yet",
        "not measured yet",
        "0 of 4",
    ):
        assert expected in text, expected
    assert not list((tmp_path / "report").iterdir())
    # Between the last evaluation during training and `cbalign evaluate`, its figures are the results.
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 2, "time": 1.0, "val/contrastive/tr@1": 12.34, "val/chance/tr@1": 0.25, "train/loss": 1.0}\n'
    )
    text = words(write_report(open_run(tmp_path)).read_text())
    assert "val at step 2, during training" in text and "No results" not in text
    assert "chance 0.25 – – – – –" in text and "contrastive 12.34" in text


def begun(tiny_run, folder, stability):
    """A run with nothing but its stability."""
    folder.mkdir()
    for name in ("config.json", "vocab.txt"):
        shutil.copy(tiny_run / name, folder / name)
    (folder / "metrics").mkdir()
    (folder / "metrics" / "stability.json").write_text(json.dumps(stability))
    return open_run(folder)


def words(text):
    """The text of a page, cells of tables apart."""
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


def test_the_stability_of_a_suites_run(tiny_run, tmp_path):
    run = begun(tiny_run, tmp_path / "run", STABILITY)
    text = write_report(run).read_text()
    page = Page(text)
    assert not page.open and '<section id="stability">' in text and 'href="#stability"' in text
    shown = words(text)
    # Means over the two intervals, the lower of both kinds in bold.
    for row in (
        "Nearest target that changes, share 0.400 0.625",
        "Movement of the targets 0.188 0.047",
        "Decorrelation of the targets 0.300 0.800",
        "512 training pairs, 3 checkpoints",
        "total loss 0.5 (5.0 % of its mean), gradient norm 1.5 (25.0 % of its mean)",
    ):
        assert row in shown, row
    for bold in ("<b>0.400</b>", "<b>0.047</b>", "<b>0.300</b>"):
        assert bold in text
    (curve,) = (title for title in page.titles if title.startswith("Movement of the targets"))
    assert "codes 0.25 at step 200, 0.125 at 300; instances 0.0625 at step 200, 0.0312 at 300" in curve


def test_the_stability_without_codes_and_of_one_interval(tiny_run, tmp_path):
    short = {kind: {name: values[:1] for name, values in STABILITY[kind].items()} for kind in ("codes", "instances")}
    one = Page(write_report(begun(tiny_run, tmp_path / "one", {**STABILITY, **short, "steps": [100, 200]})).read_text())
    assert "Between the checkpoints of step 100 and 200" in one.text
    assert not any(title.startswith("Movement") for title in one.titles)  # a single point is no curve
    without = write_report(begun(tiny_run, tmp_path / "without", {**STABILITY, "codes": None})).read_text()
    assert "Movement of the targets – 0.047" in words(without)
    without = Page(without)
    (curve,) = (title for title in without.titles if title.startswith("Movement"))
    assert "codes" not in curve


def test_a_start_and_a_suites_run_in_words(tiny_run, tmp_path):
    place = "from the first of these that exists:\n  3. init.weights     icons, deit  <- taken\n  4. scratch"
    for log, shown in (
        (place, "started from init.weights: icons, deit"),
        ("  4. scratch  <- taken", "started from scratch"),
    ):
        folder = tmp_path / "row" / "rate_0.1" / f"seed_{len(log)}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        run = begun(tiny_run, folder, STABILITY)
        (folder / "train.log").write_text(f"2026-01-01 00:00:00 {log}\n" if log == place else f"{log}\n")
        text = words(write_report(run).read_text())
        assert f"{shown} command" in text and f"row/rate_0.1/seed_{len(log)}" in text


@pytest.mark.parametrize(
    "evaluated, chosen",
    [
        ({"test_concept": 200, "test_vendor": 1599, "val": 5000}, "test_vendor"),
        ({"val": 5000}, "val"),  # the config's first
        ({"test_a": 64, "test_b": 64}, "test_a"),
    ],
)
def test_examples_are_drawn_from_the_largest_test_split(tiny_run, monkeypatch, evaluated, chosen):
    asked = []

    def encode(run, split, **_):
        asked.append(split)
        raise UserError("enough")

    monkeypatch.setattr(sections, "encode_split", encode)
    run, history = open_run(tiny_run), read_history(tiny_run)
    history = dataclasses.replace(history, results=[result(name, images=n) for name, n in evaluated.items()])
    assert sections.make_sections(run, history).missing == "enough" and asked == [chosen]


def test_split_that_does_not_exist(workdir, capsys):
    assert main(["report", f"--workdir={workdir}", "--split=none"]) == 2
    assert "has no split none" in capsys.readouterr().err
    assert main(["report", f"--workdir={workdir}", "--seed=-1"]) == 2


def task_workdir(task, data, tiny_run, folder, *, result, metrics):
    """A run of another task as training and evaluation leave it, without checkpoints."""
    config = tiny_config(task=task, data__name=data, train__steps=4, vqa__answer_tokens=5, vqa__rank_top_k=4)
    (folder / "config.json").write_text(to_json(config))
    shutil.copy(tiny_run / "vocab.txt", folder / "vocab.txt")
    (folder / "answers.json").write_text('["yes", "no", "red", "2"]')
    (folder / "metrics").mkdir()
    (folder / "metrics" / "a_result.json").write_text(json.dumps(result))
    (folder / "metrics" / "b_answers.json").write_text('[{"question_id": 1, "answer": "yes"}]')
    (folder / "metrics" / "stability.json").write_text('{"pairs": 3}')
    lines = [{"step": step, "time": 10.0 + step, **metrics} for step in (2, 4)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_run_of_vqa(tiny_run, tmp_path, capsys):
    metrics = {
        "train/loss": 3.0,
        "train/vqa_hard": 3.0,
        "train/vqa_soft": 0.0,
        "train/token_accuracy": 0.5,
        "train/learning_rate": 0.1,
        "train/pairs_per_second": 100.0,
        "val/accuracy/overall": 20.0,
        "val/accuracy/yes/no": 30.0,
        "val/chance/overall": 25.0,
    }
    folder = task_workdir("vqa", "scenes_vqa/tiny", tiny_run, tmp_path, result=VQA_RESULT, metrics=metrics)
    assert main(["report", f"--workdir={folder}"]) == 0
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert not page.open and page.tags.count("table") == 3  # facts, accuracy, types of question
    assert "No examples: " in text  # no checkpoint
    chance = math.log(len((folder / "vocab.txt").read_text().splitlines()))
    for expected in (
        "vqa on scenes_vqa/tiny test: 60 images, 128 questions",
        "<b>41.25</b>",
        "<b>60.75</b>",
        "25.00",
        "blind guess",
        "what &lt;is&gt;",
        "37.25",
        "Note: a note.",
        "4 of 4",
        "records/s",
        'aria-label="Accuracy on val, %: ',
        'aria-label="Answers, nats: ',
        'aria-label="Accuracy of answer tokens: ',
        'aria-label="Total loss: loss 3 at step 2, 3 at 4',
        f"Chance level of vqa_hard per token: {chance:.3g}.",
    ):
        assert expected in text, expected
    shown = page.text.partition("all fields")[0] + " ".join(page.titles)
    for foreign in ("Codebook", "Hits and misses", "Temperature", "Matching", "pairs", "No results"):
        assert foreign not in shown, foreign
    assert [path.name for path in (folder / "report").iterdir()] == ["losses.png"]
    assert main(["report", f"--workdir={folder}", "--checkpoint=latest"]) == 2
    assert "no checkpoint" in capsys.readouterr().err


def test_a_run_of_a_classification_task(tiny_run, tmp_path):
    metrics = {"train/loss": 1.0, "train/class_hard": 1.0, "train/class_accuracy": 0.4}
    folder = task_workdir("snli_ve", "scenes_ve/tiny", tiny_run, tmp_path, result=VE_RESULT, metrics=metrics)
    page = Page(write_report(open_run(folder)).read_text())
    assert not page.open and page.tags.count("table") == 3  # facts, accuracy, confusion matrix
    for expected in ("snli_ve on scenes_ve/tiny val: 50 images, 6 sentences", "Confusion matrix", "1,234", "100.00"):
        assert expected in page.text, expected
    assert "No evaluation yet" in page.text  # of training; metrics/ has a result
