"""What the tables, examples and curves of a report say: against the evaluation, and by formula."""

import io

import numpy as np
import pytest
from PIL import Image

from cbalign.data.image_files import load_rgb, to_png
from cbalign.evaluation.metrics import recall
from cbalign.report import encoded_split, inline, plots
from cbalign.report.encoded_split import encode_split
from cbalign.report.history import read_history
from cbalign.report.result_tables import result_view
from cbalign.report.retrieval_examples import draw_examples, hits_and_misses
from cbalign.runs.workdir import open_run
from tests.report.pages import VE_RESULT, VQA_RESULT


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
