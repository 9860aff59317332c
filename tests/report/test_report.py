"""The report of runs of several tasks, finished and just begun."""

import html.parser
import io
import json
import math
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from cbalign.__main__ import main
from cbalign.config import to_json
from cbalign.data.image_files import load_rgb, to_png
from cbalign.evaluation.metrics import recall
from cbalign.report import encoded_split, inline, plots
from cbalign.report.encoded_split import encode_split
from cbalign.report.history import read_history
from cbalign.report.page import write_report
from cbalign.report.result_tables import result_view
from cbalign.report.retrieval_examples import draw_examples, hits_and_misses
from cbalign.runs.workdir import open_run
from tests.tiny import tiny_config

URLS = re.compile(r"https?://[^\"'\s<>)]+").findall
RECALLS = {f"{way}@{k}": 1.0 * k for way in ("tr", "ir") for k in (1, 5, 10)}


def result(split, **changes):
    """What `cbalign evaluate` writes."""
    return {
        "data": "scenes/tiny",
        "split": split,
        "images": 64,
        "texts": 64,
        "chance": RECALLS,
        "contrastive": {name: 3 * value for name, value in RECALLS.items()},
        "itm": None,
        "sum": None,
        "itm_accuracy": None,
        "notes": ["ITM <is> at its prior"],
        "weights": "student",
        "baselines": {
            "pixel_nearest_neighbour": {name: 2.5 * value for name, value in RECALLS.items()},
            "bag_of_words": {**RECALLS, "tr@1": 77.77},
        },
        **changes,
    }


def ids(text):
    return set(re.findall(r'\bid="([^"]+)"', text))


class Page(html.parser.HTMLParser):
    """The addresses a page refers to, whether its tags are closed, its text as a browser shows it, images' titles."""

    VOID = {"meta", "img", "br", "link"}
    SAFE = ("data:image/webp;base64,", "data:,", "#")

    def __init__(self, text):
        super().__init__()
        self.addresses, self.open, self.tags, self.titles, self.text = [], [], [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        self.titles += [value for name, value in attrs if name in ("alt", "aria-label")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def workdir(tiny_run, tmp_path):
    """A copy of the run with results of two splits."""
    folder = tmp_path / "copy"
    shutil.copytree(tiny_run, folder, ignore=shutil.ignore_patterns("search", "report*", "metrics"))
    (folder / "metrics").mkdir()
    for split in ("test", "val"):
        (folder / "metrics" / f"retrieval_tiny_{split}.json").write_text(json.dumps(result(split)))
    return folder


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


STABILITY = {
    "pairs": 512,
    "steps": [100, 200, 300],
    "codes": {"changed": [0.5, 0.3], "moved": [0.25, 0.125], "decorrelated": [0.4, 0.2]},
    "instances": {"changed": [0.75, 0.5], "moved": [0.0625, 0.03125], "decorrelated": [0.9, 0.7]},
    "loss": {"deviation": 0.5, "relative": 0.05},
    "gradient_norm": {"deviation": 1.5, "relative": 0.25},
}


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


def test_split_that_does_not_exist(workdir, capsys):
    assert main(["report", f"--workdir={workdir}", "--split=none"]) == 2
    assert "has no split none" in capsys.readouterr().err
    assert main(["report", f"--workdir={workdir}", "--seed=-1"]) == 2


VQA_RESULT = {
    "task": "vqa",
    "data": "scenes_vqa/tiny",
    "split": "test",
    "images": 60,
    "questions": 128,
    "answer_list": 4,
    "chance": {"overall": 25.0},
    "accuracy": {"overall": 41.25, "yes/no": 55.5, "number": None},
    "question_types": {"what <is>": 12.5, "how many": 37.25},
    "baselines": {
        "blind_guess": {"overall": 39.0, "yes/no": 60.75},
        "blind_guess_by_question_type": {"what <is>": 11.0, "how many": 38.0},
    },
    "notes": ["a note"],
    "weights": "student",
}
VE_RESULT = {
    "task": "snli_ve",
    "data": "scenes_ve/tiny",
    "split": "val",
    "images": 50,
    "sentences": 6,
    "chance": {"overall": 33.3},
    "accuracy": {"overall": 50.0, "contradiction": 100.0, "neutral": 25.0, "entailment": None},
    "confusion": [[1, 0, 0], [2, 1, 1], [0, 0, 1234]],
    "baselines": {},
    "notes": [],
    "weights": "student",
}


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


def test_tables_of_a_result():
    accuracy, types = result_view(VQA_RESULT).tables
    assert accuracy.header == ("overall", "yes/no", "number")
    assert accuracy.rows == (
        ("chance", (("25.00", False), ("–", False), ("–", False))),
        ("blind guess", (("39.00", False), ("60.75", True), ("–", False))),
        ("model", (("41.25", True), ("55.50", False), ("–", False))),
    )
    assert accuracy.caption == (
        "Accuracy in %, overall and by type of answer. Chance: any answer is as likely as the others. Blind guess: the "
        "most frequent answer in training to the same text, without the image. Best in bold."
    )
    assert types.header == ("blind guess", "model")
    assert types.rows == (
        ("how many", (("38.00", False), ("37.25", False))),
        ("what <is>", (("11.00", False), ("12.50", False))),
    )
    (_, alone) = result_view({**VQA_RESULT, "baselines": {}}).tables
    assert alone.header == ("model",) and alone.rows[0] == ("how many", (("37.25", False),))
    classes, confusion = result_view(VE_RESULT).tables
    assert (
        classes.caption.startswith("Accuracy in %, overall and by true class. Chance")
        and "Blind" not in classes.caption
    )
    pairs = {**VE_RESULT, "accuracy": {**VE_RESULT["accuracy"], "consistency": 12.0}}
    assert "Consistency: statements answered rightly for all of their images." in result_view(pairs).tables[0].caption
    assert confusion.header == ("contradiction", "neutral", "entailment")
    assert confusion.rows[1] == ("neutral", (("2", False), ("1", True), ("1", False)))
    # The answers of a test split are not public.
    secret = result_view({**VQA_RESULT, "accuracy": None, "question_types": None})
    assert secret.tables == () and secret.notes == ("a note",)


def test_history_passes_over_damage(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(
        b'{"step": 1, "time": 10.0, "train/loss": 2.0}\n{"step": 2, "time": 12.0, "train/loss": null}\n[1]\nnull\n'
        b'{"time": 13.0}\n{"step": 3, "time": 14.0, "train/loss": 1.0}\n{"step": 3, "time": 15.0, "val/x": 5.0}\n'
        b'{"step": 4, "ti\xff'
    )
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "a.json").write_text("{")
    (tmp_path / "metrics" / "b.json").write_text("{}")
    history = read_history(tmp_path)
    steps, values = history.metrics["train/loss"]
    assert steps.tolist() == [1, 2, 3] and values[0] == 2 and np.isnan(values[1]) and values[2] == 1
    assert history.metrics["val/x"][0].tolist() == [3] and history.last_step == 3
    assert not history.results and not history.started and not history.command


@pytest.fixture(scope="module")
def encoded(tiny_run):
    return encode_split(open_run(tiny_run), "val")


def test_gallery_ranks_as_the_evaluation_does(encoded, tiny_run):
    made = draw_examples(encoded, count=64)
    assert encoded.scores.shape == (64, 64) and len(made.by_text) == len(made.by_image) == 64
    for queries, shown in ((made.by_text, 5), (made.by_image, 3)):
        for query in queries:
            ranking = query.contrastive
            assert len(ranking.best) == shown and sum(ranking.correct) == (ranking.rank <= shown)
    run = open_run(tiny_run)
    found = run.task.evaluate(run.params(), run.split("val")).result["contrastive"]
    for name, queries in (("ir", made.by_text), ("tr", made.by_image)):
        for k in (1, 5, 10):
            expected = 100 * np.mean([query.contrastive.rank <= k for query in queries])
            assert found[f"{name}@{k}"] == pytest.approx(expected)


def test_hits_and_misses_are_re_ranked_as_the_evaluation_does(encoded, tiny_run):
    run = open_run(tiny_run)
    found = run.task.evaluate(run.params(), run.split("val")).result
    for name, both in zip(("ir", "tr"), hits_and_misses(encoded, count=64), strict=True):
        queries = [*both.hits, *both.misses]
        assert len(queries) == 64 and 100 * both.hit_share == pytest.approx(found["contrastive"][f"{name}@1"])
        assert [query.contrastive.rank == 1 for query in queries] == [True] * len(both.hits) + [False] * len(
            both.misses
        )
        ranks = [query.reranked.rank or 1000 for query in queries]
        for k in (1, 5, 10):
            assert found["sum"][f"{name}@{k}"] == pytest.approx(100 * np.mean([rank <= k for rank in ranks]))


def test_gallery_is_drawn_by_seed(encoded):
    first, same, other = (draw_examples(encoded, seed=seed) for seed in (0, 0, 1))
    assert first == same and len(first.by_text) == 8
    assert [query.place for query in first.by_text] != [query.place for query in other.by_text]
    few = hits_and_misses(encoded, seed=0)[0]
    assert few == hits_and_misses(encoded, seed=0)[0] and len(few.misses) == 4


def test_rank_counts_ties_against_the_right_one():
    scores, right = np.array([0.5, 0.9, 0.5, 0.1]), np.array([True, False, False, False])
    assert encoded_split.rank(scores, right) == 3
    assert encoded_split.rank(scores, np.zeros(4, bool)) == 5
    found = recall(scores[np.newaxis], np.array([1]), np.array([1, 2, 3, 4]), ks=(2, 3))
    assert (found["tr@2"], found["tr@3"]) == (0, 100)


def test_thumbnails_are_upright_small_and_grey_where_an_image_is_damaged():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 40, 3), np.uint8)
    turned = Image.fromarray(pixels).getexif()
    turned[274] = 6  # shown turned by a quarter to the right
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", exif=turned)
    np.testing.assert_array_equal(inline.reduced(encoded_split.rgb(buffer.getvalue()), 112), np.rot90(pixels, 3))
    wide = inline.reduced(encoded_split.rgb(to_png(Image.new("RGB", (400, 200), "red"))), 112)
    assert wide.size == (112, 56) and load_rgb(inline.to_webp(wide))[5, 5].tolist() == pytest.approx([255, 0, 0], abs=4)
    assert inline.reduced(encoded_split.rgb(b"no image"), 112).getpixel((5, 5)) == (128, 128, 128)


def test_terms_of_a_new_task_get_panels_of_their_own():
    panels = plots.loss_panels(("loss", "temperature", "brightness"), {"brightness": 0.25, "unseen": 1.5})
    own = panels[-1]
    assert own.lines == (("train/brightness", "brightness"),) and own.levels == (("chance", 0.25),)
    assert "temperature" not in [panel.title for panel in panels]  # among the settings
    assert plots.unplotted_levels(panels, {"brightness": 0.25, "unseen": 1.5}) == [("unseen", 1.5)]


def test_accuracy_by_part_is_drawn_while_the_parts_can_be_told_apart():
    def panel(parts):
        return plots.evaluation_panels(
            {f"val/accuracy/{name}": (np.array([1]), np.array([50.0])) for name in ("overall", *parts)}
        )[0]

    assert [label for _, label in panel("abc").lines] == ["overall", "a", "b", "c"]
    assert [label for _, label in panel("abcdefgh").lines] == ["overall"]


def test_a_line_keeps_its_colour_where_others_are_missing():
    metrics = {"b": (np.arange(3), np.arange(3.0))}
    panel = plots.Panel("Panel", (("a", "first"), ("b", "second")))
    drawn = plots.panel_svg(panel, metrics)
    assert "stroke: var(--c2)" in drawn and "stroke: var(--c1)" not in drawn
    assert "second" in drawn.partition(">")[2] and "first" not in drawn


def test_soft_targets_without_a_teacher_draw_no_line():
    steps, (panel,) = np.arange(3), [p for p in plots.loss_panels((), {}) if p.title == "Classes, nats"]
    metrics = {"train/class_hard": (steps, np.arange(3.0) + 1), "train/class_soft": (steps, np.zeros(3))}
    without = plots.panel_svg(panel, metrics)
    assert "class_hard" in without and "class_soft" not in without
    metrics["train/class_soft"] = (steps, np.arange(3.0))
    assert "class_soft" in plots.panel_svg(panel, metrics)


def test_plots_start_at_step_0():
    figure = plots.Figure()
    axis = figure.subplots()
    plots._draw(axis, plots.Panel("Panel", (("a", "a"),)), {"a": (np.array([110]), np.array([1.0]))})
    left, right = axis.get_xlim()
    assert left == 0 and right > 110


def test_panels_stand_odd_data():
    steps = np.arange(1, 4)
    metrics = {
        "train/marginal_error": (steps, np.zeros(3)),
        "train/loss": (steps, np.array([np.nan, 1.0, 2.0])),
        "train/ot": (steps, np.full(3, np.nan)),
        "train/itm": (np.array([7]), np.array([0.6])),
    }
    panels = [*plots.codebook_panels(32), *plots.loss_panels(("loss", "itm"), {"itm": 0.64})]
    assert [panel.title for panel in panels if plots.has_data(panel, metrics)] == [
        "Error of the plan's marginals",
        "Total loss",
        "Matching (itm), nats",
    ]
    assert Image.open(io.BytesIO(plots.draw_panels(panels, metrics))).size[0] > 1000
