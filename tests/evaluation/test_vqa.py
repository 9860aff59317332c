"""VQA: the challenge's rules on published cases, ranking against a plain loop, the server's file."""

import json

import numpy as np
import pytest

from cbalign.errors import UserError
from cbalign.evaluation.vqa import (
    AnswerFunctions,
    answer_accuracy,
    normalise_answer,
    question_accuracy,
    rank_answers,
    write_results,
)


@pytest.mark.parametrize("matching, score", [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_accuracy_is_the_published_table(matching, score):
    """visualqa.org: min(#people who said it / 3, 1), averaged over all sets of nine of the ten people."""
    given = ["red"] * matching + ["blue"] * (10 - matching)
    assert question_accuracy("red", given) == pytest.approx(score)


def test_accuracy_is_the_mean_over_sets_of_nine():
    rng = np.random.default_rng(0)
    for _ in range(50):
        given = [str(x) for x in rng.integers(11, 15, 10)]
        wanted = np.mean([min(1, (given[:i] + given[i + 1 :]).count("12") / 3) for i in range(10)])
        assert question_accuracy("12", given) == pytest.approx(wanted)


@pytest.mark.parametrize(
    "raw, clean",
    [
        ("Yes!", "yes"),
        ("the dog", "dog"),
        ("A  red\tcar\n", "red car"),
        ("two", "2"),
        ("none", "0"),
        ("10", "10"),
        ("dont know", "don't know"),
        ("isnt", "isn't"),
        ("1,000", "1000"),
        ("U.S.", "us"),
        ("3.5", "3.5"),
        ("5.", "5"),
        ("t-shirt", "t shirt"),
        ("black and white - striped", "black and white striped"),
        ("whats that?", "what's that"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("yall'll", "y'all'll"),
        ("yall'd've", "y'all'd've"),
        ("somebody'd", "somebodyd"),
        ("its", "its"),
        ("were", "were"),
        ("well", "well"),
        ("oclock", "o'clock"),
        ("hes", "he's"),
        ("hed", "he'd"),
        ("let's", "let's"),
        ("an apple", "apple"),
        ("Theres", "there's"),
    ],
)
def test_normalisation_as_the_rules_say(raw, clean):
    assert normalise_answer(raw) == clean


def test_answers_are_normalised_where_people_disagree_only():
    assert question_accuracy("two", ["2"] * 9 + ["three"]) == pytest.approx(1.0)
    assert question_accuracy("two", ["2"] * 10) == 0.0


def test_one_answer_is_right_where_equal():
    assert question_accuracy("frisbee", ["frisbee"]) == 1.0 and question_accuracy("ball", ["frisbee"]) == 0.0


def test_parts():
    result = answer_accuracy(
        ["yes", "2", "red"],
        [["yes"] * 10, ["3"] * 10, ["red"] * 1 + ["blue"] * 9],
        question_types=["is there", "how many", ""],
        answer_types=["yes/no", "number", "other"],
    )
    assert result["overall"] == pytest.approx((100 + 0 + 30) / 3)
    assert result["answer_types"] == pytest.approx({"yes/no": 100.0, "number": 0.0, "other": 30.0})
    assert set(result["question_types"]) == {"is there", "how many"}


VOCABULARY, QUESTIONS = 12, 3
# [CLS] is 2, [SEP] is 3; two answers begin with the same token.
LIST = np.array([[2, 5, 3, 0], [2, 5, 6, 3], [2, 7, 3, 0], [2, 8, 9, 3], [2, 4, 3, 0]], np.int32)


@pytest.fixture
def language():
    """A made-up decoder: log p of the next token is a table of (question, token before)."""
    table = np.random.default_rng(3).normal(size=(QUESTIONS, VOCABULARY, VOCABULARY))
    return table - np.log(np.exp(table).sum(-1, keepdims=True))


def functions_of(table):
    def likelihood(states, question_ids, ids):
        return np.array(
            [
                sum(table[q, row[t], row[t + 1]] for t in range(len(row) - 1) if row[t + 1])
                for q, row in zip(states, ids)
            ]
        )

    return AnswerFunctions(
        states=lambda images, ids: np.arange(len(ids)),
        next_token=lambda states, question_ids, ids: np.array([table[q, row[-1]] for q, row in zip(states, ids)]),
        likelihood=likelihood,
    )


def score(table, q, answer):
    tokens = [t for t in answer if t]
    return sum(table[q, a, b] for a, b in zip(tokens, tokens[1:]))


@pytest.mark.parametrize("rows", [3, 7, 512])
def test_ranking_all_answers_is_sorting_by_likelihood(language, rows):
    best, scores = rank_answers(
        functions_of(language),
        None,
        np.zeros((QUESTIONS, 4), np.int32),
        LIST,
        top_k=99,
        first_token_twice=False,
        rows=rows,
    )
    for q in range(QUESTIONS):
        wanted = sorted(range(len(LIST)), key=lambda a: -score(language, q, LIST[a]))
        assert best[q].tolist() == wanted
        np.testing.assert_allclose(scores[q], [score(language, q, LIST[a]) for a in wanted], rtol=1e-5)


def test_only_likely_beginnings_are_scored_in_full(language):
    best, _ = rank_answers(functions_of(language), None, np.zeros((QUESTIONS, 4), np.int32), LIST, top_k=2)
    for q in range(QUESTIONS):
        by_first = sorted(range(len(LIST)), key=lambda a: (-language[q, 2, LIST[a, 1]], a))[:2]
        assert sorted(best[q]) == sorted(by_first)


@pytest.mark.parametrize("rows", [3, 7, 512])
@pytest.mark.parametrize(
    "top_k, order, shares",
    [
        # Returned by ALBEF's own `rank_answer` (`models/model_vqa.py`), its decoder replaced by the table of `language`.
        (
            5,
            [[0, 3, 2, 1, 4], [0, 4, 2, 1, 3], [2, 1, 0, 4, 3]],
            [
                [0.923473, 0.038083, 0.015105, 0.012029, 0.01131],
                [0.545551, 0.407107, 0.026059, 0.016842, 0.004441],
                [0.534634, 0.200001, 0.144399, 0.118737, 0.002229],
            ],
        ),
        (2, [[0, 1], [4, 1], [1, 0]], [[0.987142, 0.012858], [0.960274, 0.039726], [0.580724, 0.419276]]),
    ],
)
def test_the_first_token_counts_twice_as_in_albef(language, rows, top_k, order, shares):
    best, scores = rank_answers(
        functions_of(language), None, np.zeros((QUESTIONS, 4), np.int32), LIST, top_k=top_k, rows=rows
    )
    kept = [0, 2] if top_k == 2 else [0, 1, 2]
    # Of question 1, answers 0 and 1 begin alike, so that either may be the second of two: torch took another one.
    assert best[kept].tolist() == [order[q] for q in kept]
    shown = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(shown[kept], [shares[q] for q in kept], atol=2e-6)


def test_the_first_token_may_count_once(language):
    """With the first token counted twice another answer would win here."""
    table = np.full((1, VOCABULARY, VOCABULARY), -9.0)
    table[0, 2, 5], table[0, 5, 3] = -1.0, -2.0  # -3, or -4 with the first token twice
    table[0, 2, 7], table[0, 7, 3] = -1.6, -1.0  # -2.6, or -4.2
    asked = (functions_of(table), None, np.zeros((1, 4), np.int32), LIST)
    best, scores = rank_answers(*asked, top_k=99, first_token_twice=False)
    assert best[0, 0] == 2 and scores[0, 0] == pytest.approx(-2.6)
    best, scores = rank_answers(*asked, top_k=99)
    assert best[0, 0] == 0 and scores[0, 0] == pytest.approx(-4.0)


def test_results_file(tmp_path):
    write_results(tmp_path / "r.json", [7, 8], ["yes", "2"], expected_ids=[8, 7])
    assert json.loads((tmp_path / "r.json").read_text()) == [
        {"question_id": 7, "answer": "yes"},
        {"question_id": 8, "answer": "2"},
    ]


@pytest.mark.parametrize(
    "ids, expected, reason", [([7], [7, 8], "1 missing"), ([7, 7], [7], "1 answered twice"), ([7, 9], [7], "1 unknown")]
)
def test_results_file_that_the_server_would_refuse(tmp_path, ids, expected, reason):
    with pytest.raises(UserError, match=reason):
        write_results(tmp_path / "r.json", ids, ["yes"] * len(ids), expected_ids=expected)
    assert not (tmp_path / "r.json").exists()
