"""Questions about scenes with answers, balanced such that all answers to a question are equally frequent.

A :class:`Question` is evaluated on all scenes at once (:func:`answer_scenes`). The questions of a split come in rounds:
one question with one scene for each of its possible answers. A model that sees the question but not the image is
therefore right no more often than by chance, 1 / (number of the question's answers).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from cbalign.data.datasets.generated.scene_captions import Phrase
from cbalign.data.datasets.generated.scene_table import NOTHING, WORDS, SceneTable, phrases, plural, the
from cbalign.data.datasets.generated.scene_world import RELATIONS

YES_NO = ("no", "yes")
# The share of each topic in the examples.
TOPIC_SHARES = {
    "colour": 0.18,
    "kind": 0.18,
    "size": 0.08,
    "place": 0.1,
    "count": 0.12,
    "exists": 0.1,
    "relation": 0.1,
    "ground": 0.04,
    "texture": 0.04,
    "beside": 0.06,
}


@dataclasses.dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
      topic: One of `TOPIC_SHARES`.
      text: The question in English, with question mark.
      subject: The shapes it is about; None for the ground.
      relation: One of `RELATIONS`: of the subject to the other shape ("relation"), or of the shape asked for to the
        subject ("beside").
      other: The second shape of a relation.
      attribute: The attribute that "beside" asks for, "kind" or "colour".
      answers: Its possible answers.
    """

    topic: str
    text: str
    answers: tuple[str, ...]
    subject: Phrase | None = None
    relation: str | None = None
    other: Phrase | None = None
    attribute: str | None = None

    @property
    def type(self) -> str:
        """The first words, by which VQA v2 groups questions."""
        words = self.text.rstrip("?").split()
        return " ".join(words[:3] if words[0] == "what" and words[1] != "is" else words[:2])

    @property
    def answer_type(self) -> str:
        """The answer type of VQA v2: "yes/no", "number" or "other"."""
        return {"exists": "yes/no", "relation": "yes/no", "count": "number"}.get(self.topic, "other")


def all_questions() -> dict[str, list[Question]]:
    """{topic: its questions}, in a fixed order."""
    kinds, coloured = phrases("kind"), phrases("colour")
    places, pairs = phrases("cell"), phrases("colour", "kind")
    of_size = phrases("size", "kind")
    ask = lambda topic, text, answers, *rest: Question(topic, text, tuple(answers), *rest)  # noqa: E731
    numbers = lambda first, last: tuple(str(n) for n in range(first, last + 1))  # noqa: E731
    return {
        "colour": [ask("colour", f"what colour is {the(s)}?", WORDS["colour"], s) for s in kinds + of_size + places],
        "kind": [
            ask("kind", f"what is {the(s)}?", WORDS["kind"], s) for s in coloured + phrases("size", "colour") + places
        ],
        "size": [ask("size", f"is {the(s)} large or small?", WORDS["size"], s) for s in kinds + coloured + pairs],
        "place": [ask("place", f"where is {the(s)}?", WORDS["cell"], s) for s in kinds + coloured + pairs],
        "count": [
            *(ask("count", f"how many {plural(s)} are there?", numbers(0, 2), s) for s in kinds + coloured),
            *(ask("count", f"how many {plural(s)} are there?", numbers(0, 3), s) for s in phrases("size")),
            ask("count", "how many shapes are there?", numbers(1, 4), Phrase()),
        ],
        "exists": [ask("exists", f"is there {s.text(article=True)}?", YES_NO, s) for s in pairs + of_size],
        "relation": [
            ask("relation", f"is {the(a)} {relation} {the(b)}?", YES_NO, a, relation, b)
            for group in (kinds, coloured)
            for a in group
            for b in group
            if a != b
            for relation in RELATIONS
        ],
        "ground": [ask("ground", "what colour is the ground?", WORDS["ground"])],
        "texture": [ask("texture", "what pattern does the ground have?", WORDS["texture"])],
        "beside": [
            *(
                ask("beside", f"what is {relation} {the(s)}?", WORDS["kind"], s, relation, None, "kind")
                for s in kinds + coloured
                for relation in RELATIONS
            ),
            *(
                ask(
                    "beside",
                    f"what colour is the shape {relation} {the(s)}?",
                    WORDS["colour"],
                    s,
                    relation,
                    None,
                    "colour",
                )
                for s in kinds + coloured
                for relation in RELATIONS
            ),
        ],
    }


def answer_scenes(question: Question, table: SceneTable) -> np.ndarray:
    """The index of a question's answer for each scene: int8 [n].

    `NOTHING` if the question has no answer: its presupposition (that there is exactly one such shape) does not hold, or
    the true number is not among its answers.
    """
    if question.topic in ("ground", "texture"):
        return getattr(table, question.topic)
    found = table.matches(question.subject)
    one = found.sum(axis=1) == 1
    if question.topic == "count":
        number = found.sum(axis=1) - int(question.answers[0])
        return np.where((number >= 0) & (number < len(question.answers)), number, NOTHING).astype(np.int8)
    if question.topic == "exists":
        return found.any(axis=1).astype(np.int8)
    if question.topic == "relation":
        other = table.matches(question.other)
        # Otherwise a shape that matches both phrases (the circle, the red one) would be related to itself.
        plain = one & (other.sum(axis=1) == 1) & ~(found & other).any(axis=1)
        holds = (found & table.in_relation(question.relation, other)).any(axis=1)
        return np.where(plain, holds, NOTHING).astype(np.int8)
    if question.topic == "beside":
        beside = table.attribute(question.attribute, table.in_relation(question.relation, found))
        return np.where(one, beside, NOTHING).astype(np.int8)
    return table.attribute({"place": "cell"}.get(question.topic, question.topic), found)


def question_rounds(table: SceneTable, rng: np.random.Generator) -> Iterator[list[tuple[int, Question, str]]]:
    """Infinite rounds of (scene, question, answer): one question with each of its answers once.

    Among the scenes with a given answer, the one for which that answer was used least is chosen, then the one with the
    fewest questions, so that a model that sees the image but not the question does no better than chance either. No
    question is asked twice about a scene.

    Raises:
      ValueError: if no question is left; more scenes allow more examples.
    """
    pool = _Pool(table)
    topics = list(TOPIC_SHARES)
    # A round has one example per answer, while the shares refer to examples.
    sizes = np.array([np.mean([len(q.answers) for q in pool.questions[topic]]) for topic in topics])
    odds = np.array([TOPIC_SHARES[topic] for topic in topics]) / sizes
    while topics:
        number = int(rng.choice(len(topics), p=odds / odds.sum()))
        questions = pool.questions[topics[number]]
        chosen = int(rng.integers(len(questions)))
        if taken := pool.round(questions[chosen], rng):
            yield taken
            continue
        # No scene is left for some answer: the question could not be balanced.
        questions.pop(chosen)
        if not questions:
            topics.pop(number)
            odds = np.delete(odds, number)
    raise ValueError(f"{len(table)} scenes have no more balanced questions; use more scenes or fewer examples")


class _Pool:
    """Keeps track of the questions that may still be asked about each scene."""

    def __init__(self, table: SceneTable):
        self.table, self.questions = table, all_questions()
        self.asked = np.zeros(len(table), np.int64)
        self.given: dict[str, np.ndarray] = {}
        self.answers: dict[Question, np.ndarray] = {}

    def round(self, question: Question, rng: np.random.Generator) -> list[tuple[int, Question, str]] | None:
        """One example for each answer, or None if an answer has no scene."""
        if question not in self.answers:
            self.answers[question] = answer_scenes(question, self.table).copy()
        left = self.answers[question]
        candidates = [np.flatnonzero(left == number) for number in range(len(question.answers))]
        if any(not len(scenes) for scenes in candidates):
            return None
        taken = []
        for number in rng.permutation(len(question.answers)):
            scenes, answer = candidates[number], question.answers[number]
            given = self.given.setdefault(answer, np.zeros(len(self.table), np.int64))
            rank = given[scenes] * 1000.0 + self.asked[scenes] + rng.random(len(scenes))
            scene = int(scenes[np.argmin(rank)])
            given[scene] += 1
            self.asked[scene] += 1
            left[scene] = NOTHING
            taken.append((scene, question, answer))
        return taken
