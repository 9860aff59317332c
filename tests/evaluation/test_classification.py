"""Figures of classification by hand, and consistency as NLVR2 counts it."""

import pytest

from cbalign.evaluation.classification import blind_guess, classification_scores, consistency
from cbalign.evaluation.result_table import format_result


def test_scores_by_hand():
    scores = classification_scores([0, 1, 1, 2, 0], [0, 1, 2, 2, 2], ("a", "b", "c"))
    assert scores["accuracy"] == pytest.approx({"overall": 60.0, "a": 100.0, "b": 100.0, "c": 100 / 3})
    assert scores["confusion"] == [[1, 0, 0], [0, 1, 0], [1, 1, 1]]


def test_a_class_without_examples_has_no_accuracy():
    assert classification_scores([0], [0], ("a", "b"))["accuracy"] == {"overall": 100.0, "a": 100.0, "b": None}


@pytest.mark.parametrize("predicted, labels", [([], []), ([0], [0, 1]), ([2], [0]), ([0], [-1])])
def test_bad_input(predicted, labels):
    with pytest.raises(ValueError, match="match"):
        classification_scores(predicted, labels, ("a", "b"))


def test_consistency_wants_every_pair_of_a_statement():
    identifiers = ["dev-1-0-0", "dev-1-1-0", "dev-1-0-1", "dev-1-1-1", "dev-2-0-0"]
    # Statement 1-?-0 right twice, 1-?-1 once, 2-?-0 alone and right.
    assert consistency([1, 0, 1, 1, 0], [1, 0, 1, 0, 0], identifiers) == pytest.approx(200 / 3)
    with pytest.raises(ValueError, match="identifier"):
        consistency([1], [1], ["dev-1"])


def test_blind_guess_knows_texts_only():
    guesses = blind_guess(["a", "a", "a", "b"], ["x", "y", "x", "z"], ["a", "b", "c"])
    assert guesses == ["x", "z", "x"]


def test_table():
    table = format_result(
        {
            "task": "snli_ve",
            "data": "scenes_ve",
            "split": "test",
            "images": 10,
            "sentences": 1200,
            "notes": ["so"],
            "chance": {"overall": 50.0},
            "accuracy": {"overall": 75.0, "no": 70.0, "yes": 80.0},
            "baselines": {"blind_guess": {"overall": 51.5, "no": None, "yes": 100.0}},
            "confusion": [[7, 3], [2, 8]],
        }
    )
    lines = table.splitlines()
    assert lines[0] == "snli_ve on scenes_ve test: 10 images, 1,200 sentences; accuracy in %"
    assert lines[1].split() == ["overall", "no", "yes"] and lines[2].split() == ["chance", "50.00", "-", "-"]
    assert lines[3].split() == ["blind", "guess", "51.50", "-", "100.00"]
    assert lines[4].split() == ["model", "75.00", "70.00", "80.00"] and lines[-1] == "note: so"
    assert lines[-2].split() == ["yes", "2", "8"]
