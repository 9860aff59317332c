"""Confused concepts and words, by hand."""

import numpy as np
import pytest

from cbalign.evaluation.confusion import confused_concepts, confused_words, first_misses

# Two images each of the concepts 7 and 8, one of 9; texts of 7, 8, 8, 9.
IMAGE_IDS, TEXT_IDS = np.array([7, 7, 8, 8, 9]), np.array([7, 8, 8, 9])
SCORES = np.array(
    [
        [0.9, 0.1, 0.2, 0.3],  # right
        [0.2, 0.1, 0.6, 0.3],  # 7 taken for 8 by text 2, margin 0.4
        [0.5, 0.4, 0.3, 0.1],  # 8 for 7, margin 0.1
        [0.8, 0.2, 0.1, 0.0],  # 8 for 7, margin 0.6
        [0.1, 0.5, 0.2, 0.5],  # 9 for 8: a tie counts against it
    ]
)


def test_concepts():
    found = confused_concepts(SCORES, IMAGE_IDS, TEXT_IDS, top=9)
    assert [(c.image, c.text, c.own_text, c.count, c.of, c.mutual) for c in found] == [
        (3, 0, 1, 2, 2, True),
        (1, 2, 0, 1, 2, True),
        (4, 1, 3, 1, 1, False),
    ]
    assert [c.margin for c in found] == pytest.approx([0.6, 0.4, 0.0])
    assert len(confused_concepts(SCORES, IMAGE_IDS, TEXT_IDS, top=1)) == 1
    assert confused_concepts(np.eye(2), np.arange(2), np.arange(2), top=9) == []


def test_misses_are_those_of_recall_at_one():
    texts = ["seven", "eight", "also eight", "nine"]
    found = list(first_misses(SCORES, IMAGE_IDS, TEXT_IDS, texts))
    assert found == [("seven", "also eight"), ("eight", "seven"), ("eight", "seven"), ("nine", "eight")]
    assert list(first_misses(np.ones((1, 1)), np.zeros(1), np.zeros(1), ["only"])) == []


def test_words():
    misses = [
        ("a red circle", "a blue circle"),
        ("red Star", "blue star!"),
        ("red circle", "green square"),
        ("a", "a b"),
    ]
    found = confused_words(misses, top=3)
    assert found == [("red", "blue", 2.0), ("circle", "green", 0.25), ("circle", "square", 0.25)]
