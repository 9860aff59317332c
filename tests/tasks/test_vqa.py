"""What VQA is compared with."""

import types

import pytest

from cbalign.tasks.vqa import Vqa


def test_blind_guesses_about_questions_are_scored_by_type_of_question():
    def split(*rows):
        names = ("question_type", "answer_type", "answers")
        columns = {name: [row[place] for row in rows] for place, name in enumerate(names, 1)}
        return types.SimpleNamespace(records=types.SimpleNamespace(texts=[[row[0]] for row in rows], columns=columns))

    seen = split(("how many?", "count", "number", ["2"] * 10), ("what colour?", "colour", "other", ["red"] * 10))
    asked = split(
        ("how many?", "count", "number", ["2"] * 10),
        ("how many?", "count", "number", ["3"] * 10),
        ("what colour?", "colour", "other", ["red"] * 10),
        ("what colour?", "colour", "other", ["blue"] * 8 + ["red"] * 2),
    )
    found, notes = Vqa.baselines(Vqa, asked, lambda: seen, own_data=True)
    # VQA's accuracy of an answer that 2 of 10 people gave: the mean over the subsets of 9 of min(n / 3, 1).
    two = 100 * (2 * 1 / 3 + 8 * 2 / 3) / 10
    assert notes == [] and found["blind_guess"]["number"] == pytest.approx(50)
    by_type = {"count": 50, "colour": (100 + two) / 2}
    assert found["blind_guess_by_question_type"] == pytest.approx(by_type)
