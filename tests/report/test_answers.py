"""Reports of tasks that predict: right and wrong answers agree with the evaluation's predictions."""

import shutil

import numpy as np
import pytest

from cbalign.report.page import write_report
from cbalign.report.prediction_examples import draw_answers
from cbalign.runs.train import train_run
from cbalign.runs.workdir import open_run
from tests.report.pages import Page
from tests.runs.test_tasks import task_config, train_vqa

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["vqa", "nlvr2"])
def run(request, made_once, tiny_run, tfds_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp(request.param) / "run"
    if request.param == "vqa":
        shutil.copytree(train_vqa(made_once, tiny_run, tfds_dir), workdir)
    else:
        train_run(task_config(request.param, tfds_dir, tiny_run, train__steps=2, eval__splits=("val",)), workdir)
    return open_run(workdir)


def test_answers_are_those_of_the_evaluation(run):
    split = run.split("val")
    predictions = run.task.evaluate(run.params(), split).predictions
    named = [run.task.classes[x] if run.task.classes else x for x in predictions]
    rows = np.sort(np.random.default_rng(3).choice(len(split), 48, replace=False)).tolist()
    column = split.records.columns
    if run.task.classes:
        truths = [{run.task.classes[label]} for label in np.asarray(split.columns.arrays["label"]).tolist()]
    else:
        truths = [set(people) for people in column["answers"]]
    found = draw_answers(run, "val", count=48, seed=3)
    assert (found.drawn, found.tried, found.secret) == (48, 48, False)
    right = [row for row in rows if named[row] in truths[row]]
    assert found.right_count == len(right) == len(found.right) and len(found.wrong) == 48 - len(right)
    for answered, row in zip(found.right, right, strict=True):
        assert answered.text == split.records.texts[row][0] and answered.answers[0][0] == named[row]
        assert set(answered.truths) == truths[row] and len(answered.images) == run.task.images_per_record


def test_the_page_shows_them(run):
    text = write_report(run).read_text()
    page = Page(text)
    assert not page.open and all(address.startswith(Page.SAFE) for address in page.addresses)
    assert "Right and wrong answers" in text and "No results" not in text
    found = draw_answers(run, "val")
    assert f"Right: {found.right_count} of 48" in text and f"Wrong: {48 - found.right_count} of 48" in text
    assert text.count("data-answer=") == len(found.right) + len(found.wrong)
