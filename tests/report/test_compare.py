"""Runs side by side: differences, settings, curves."""

import json
import shutil

import pytest

from cbalign.__main__ import main
from cbalign.report.compare import compared_results, different_settings, write_comparison
from cbalign.report.history import read_history
from cbalign.runs.workdir import open_run
from tests.report.pages import STABILITY, VE_RESULT, Page, result
from tests.tiny import tiny_config


@pytest.fixture
def runs(tiny_run, tmp_path):
    """Three copies of the run: results of one split that differ by 10 points, and one run that lacks them."""
    folders = [tmp_path / name / "run" for name in ("first", "second", "third")]
    for number, folder in enumerate(folders):
        shutil.copytree(tiny_run, folder, ignore=shutil.ignore_patterns("search", "report*", "metrics", "checkpoints"))
        (folder / "metrics").mkdir()
        if number < 2:
            found = {f"{way}@{k}": 20.0 + k + 10 * number for way in ("tr", "ir") for k in (1, 5, 10)}
            (folder / "metrics" / "a.json").write_text(json.dumps(result("test", contrastive=found)))
    return folders


def test_figures_and_differences(runs):
    (compared,) = compared_results(["a", "b", "c"], [read_history(folder) for folder in runs])
    assert compared.title.startswith("scenes/tiny test: 64 images")
    tables = {table.caption: table for table in compared.tables}
    assert "ITM re-ranking" not in tables  # no run has it
    first, second, third = (cells[0] for _, cells in tables["contrastive"].rows)
    assert (first.value, first.difference) == (21.0, None)
    assert (second.value, second.difference) == (31.0, 10.0)
    assert (third.value, third.difference) == (None, None)
    assert [name for name, _ in tables["bag of words"].rows] == ["any run"]
    # Two standard errors of the difference of two shares of one half from 64 images each: 2 sqrt(2 * 0.25 / 64).
    assert compared.error == pytest.approx(17.68, abs=0.01)


def test_settings_that_differ():
    configs = [tiny_config(), tiny_config(seed=3, codebook__num_codes=16)]
    assert different_settings(configs) == [("codebook.num_codes", ["32", "16"]), ("seed", ["0", "3"])]
    assert different_settings([configs[0], tiny_config()]) == []


@pytest.mark.slow
def test_the_page(runs, capsys):
    out = runs[0].parent / "page.html"
    assert main(["report", "--compare", *map(str, runs), f"--out={out}"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    text = out.read_text()
    page = Page(text)
    assert not page.open and all(address.startswith(Page.SAFE) for address in page.addresses)
    for expected in ("3 runs", "to the first run, first.", "31.00", "(+10.00)", "None: the runs have the same config"):
        assert expected in text, expected
    (losses,) = (title for title in page.titles if title.startswith("Total loss"))
    assert losses.count(" at step 1, ") == 3 and "; third " in losses
    assert 'id="stability"' not in text
    for folder in runs[:2]:
        (folder / "metrics" / "stability.json").write_text(json.dumps(STABILITY))
    assert main(["report", "--compare", *map(str, runs), f"--out={out}"]) == 0
    titles = Page(out.read_text()).titles
    (codes,) = (title for title in titles if title.startswith("Movement of the targets: codes"))
    assert codes.count("0.25 at step 200, 0.125 at 300") == 2 and "third" not in codes
    assert write_comparison([open_run(folder) for folder in runs[:2]]) == runs[0] / "compare.html"


def test_mistakes(runs, capsys):
    for arguments, message in (
        (["--compare", runs[0]], "--compare needs at least two runs"),
        (["--compare", runs[0], runs[0]], "--compare names a run twice"),
        (["--compare", runs[0], runs[1], "--split=val"], "--compare draws no examples"),
        ([f"--workdir={runs[0]}", "--out=page.html"], "--out is the page of --compare"),
        (["--compare", runs[0], runs[0].parent], "is not the folder of a run"),
    ):
        assert main(["report", *map(str, arguments)]) == 2
        assert message in capsys.readouterr().err


def test_tasks_with_accuracies(tmp_path):
    for name, overall in (("a", 50.0), ("b", 45.5)):
        (tmp_path / name / "metrics").mkdir(parents=True)
        found = {**VE_RESULT, "accuracy": {**VE_RESULT["accuracy"], "overall": overall}}
        (tmp_path / name / "metrics" / "ve.json").write_text(json.dumps(found))
    (compared,) = compared_results(["a", "b"], [read_history(tmp_path / name) for name in "ab"])
    # Of 6 sentences, not of their 50 images: 2 sqrt(2 * 0.25 / 6).
    assert compared.error == pytest.approx(57.735, abs=0.001)
    model = next(table for table in compared.tables if table.caption == "model")
    assert model.header == ("overall", "contradiction", "neutral", "entailment")
    assert model.rows[1][1][0].difference == -4.5 and model.rows[1][1][3].value is None
