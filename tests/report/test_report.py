"""The report of a tiny run, whole and in part."""

import html.parser
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from cbalign.runs.ranking import GallerySet, model_functions, retrieve
from cbalign.runs.workdir import open_run
from cbalign.__main__ import main
from cbalign.evaluation.metrics import recall
from cbalign.report import gallery
from cbalign.report import plots
from cbalign.report.history import read_history
from cbalign.report.page import write_report

RECALLS = {f"{way}@{k}": 1.0 * k for way in ("tr", "ir") for k in (1, 5, 10)}


def result(split, **changes):
    """What `cbalign evaluate` writes."""
    return {
        "data": "scenes/tiny", "split": split, "images": 64, "texts": 64, "chance": RECALLS,
        "contrastive": {name: 3 * value for name, value in RECALLS.items()}, "itm": None, "sum": None,
        "itm_accuracy": None, "notes": ["ITM <is> at its prior"], "weights": "student",
        "baselines": {"pixel_nearest_neighbour": {name: 2.5 * value for name, value in RECALLS.items()},
                      "bag_of_words": {**RECALLS, "tr@1": 77.77}}, **changes,
    }


class Page(html.parser.HTMLParser):
    """All addresses a page refers to, and whether its tags are closed."""

    VOID = {"meta", "img", "br", "link"}

    def __init__(self, text):
        super().__init__()
        self.addresses, self.open, self.tags = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def workdir(tiny_run, tmp_path):
    """A copy of the run with results of two splits."""
    folder = tmp_path / "copy"
    shutil.copytree(tiny_run, folder, ignore=shutil.ignore_patterns("search", "report*", "metrics"))
    (folder / "metrics").mkdir()
    for split in ("test", "val"):
        (folder / "metrics" / f"retrieval_tiny_{split}.json").write_text(json.dumps(result(split)))
    return folder


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
    assert not page.open and page.tags.count("table") == 3
    # Not a thing is fetched from elsewhere.
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert "http:" not in text and "https:" not in text and "url(" not in text and "script" not in page.tags
    for expected in ("scenes/tiny test: 64 images", "scenes/tiny val: 64 images", "pixel nearest neighbour",
                     "contrastive + ITM", "<b>77.77</b>", "<b>15.00</b>", "ITM &lt;is&gt; at its prior",
                     "Recall on val", "Accuracy of matching", "Error of the plan", "Learning rate",
                     "4 of 4", "pairs/s", "cpu device", "drawn at random with seed 0", "&quot;num_codes&quot;: 32",
                     "scenes/tiny test: drawn"):
        assert expected in text, expected
    assert text.count('alt="Matching (itm), nats"') == 1 and "<b>1.00</b>" not in text


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
    for expected in ("No results yet", "No examples: no checkpoint", "No training metrics yet", "No evaluation yet",
                     "not measured yet", "0 of 4"):
        assert expected in text, expected
    assert not list((tmp_path / "report").iterdir())


def test_split_that_does_not_exist(workdir, capsys):
    assert main(["report", f"--workdir={workdir}", "--split=none"]) == 2
    assert "has no split none" in capsys.readouterr().err
    assert main(["report", f"--workdir={workdir}", "--seed=-1"]) == 2


def test_history_passes_over_damage(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(
        b'{"step": 1, "time": 10.0, "train/loss": 2.0}\n{"step": 2, "time": 12.0, "train/loss": null}\n[1]\nnull\n'
        b'{"time": 13.0}\n{"step": 3, "time": 14.0, "train/loss": 1.0}\n{"step": 3, "time": 15.0, "val/x": 5.0}\n'
        b'{"step": 4, "ti\xff')
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "a.json").write_text("{")
    (tmp_path / "metrics" / "b.json").write_text("{}")
    history = read_history(tmp_path)
    steps, values = history.metrics["train/loss"]
    assert steps.tolist() == [1, 2, 3] and values[0] == 2 and np.isnan(values[1]) and values[2] == 1
    assert history.metrics["val/x"][0].tolist() == [3] and history.last_step == 3
    assert not history.results and not history.started and not history.command


def test_gallery_ranks_as_the_evaluation_does(workdir):
    run = open_run(workdir)
    made = gallery.make_gallery(run, "val", count=64)
    assert made.total == (64, 64) and len(made.by_text) == len(made.by_image) == 64
    for query in made.by_text:
        assert len(query.images) == 5 and sum(query.right) == (query.rank <= 5)
    for query in made.by_image:
        assert len(query.texts) == 3 and sum(query.right) == (query.rank <= 3)
    functions, split = model_functions(run.task.model), GallerySet.of(run, "val")
    found = retrieve(functions, run.params(), split, run.config, reranking=False)["contrastive"]
    for k in (1, 5, 10):
        assert found[f"ir@{k}"] == pytest.approx(100 * np.mean([query.rank <= k for query in made.by_text]))
        assert found[f"tr@{k}"] == pytest.approx(100 * np.mean([query.rank <= k for query in made.by_image]))


def test_gallery_is_drawn_by_seed(workdir):
    run = open_run(workdir)
    first, same, other = (gallery.make_gallery(run, "val", seed=seed) for seed in (0, 0, 1))
    assert first.by_text == same.by_text and len(first.by_text) == 8
    assert [query.text for query in first.by_text] != [query.text for query in other.by_text]


def test_rank_counts_ties_against_the_right_one():
    scores, right = np.array([0.5, 0.9, 0.5, 0.1]), np.array([True, False, False, False])
    assert gallery._rank(scores, right) == 3
    assert gallery._rank(scores, np.zeros(4, bool)) == 5
    found = recall(scores[np.newaxis], np.array([1]), np.array([1, 2, 3, 4]), ks=(2, 3))
    assert (found["tr@2"], found["tr@3"]) == (0, 100)


def test_panels_stand_odd_data():
    steps = np.arange(1, 4)
    metrics = {
        "train/marginal_error": (steps, np.zeros(3)), "train/loss": (steps, np.array([np.nan, 1.0, 2.0])),
        "train/ot": (steps, np.full(3, np.nan)), "train/itm": (np.array([7]), np.array([0.6])),
    }
    panels = [*plots.codebook_panels(32), *plots.loss_panels({"itm": 0.64})]
    assert [panel.title for panel in panels if plots.has_data(panel, metrics)] == [
        "Error of the plan's marginals", "Total loss", "Matching (itm), nats"]
    assert Image.open(io.BytesIO(plots.draw_panels(panels, metrics))).size[0] > 1000
