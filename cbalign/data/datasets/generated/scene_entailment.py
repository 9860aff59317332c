"""Hypotheses about scenes in three classes: entailment, contradiction and neutral.

An image is regarded as a view of a larger world. "The circle is red" therefore follows from an image of one red circle,
contradicts an image of a blue circle, and is neutral to an image without a circle.

Hypotheses come in blocks of three with three scenes; each hypothesis is entailed by one scene, contradicted by another
and neutral to the third, and likewise for each scene: a Latin square. A model that sees only the hypotheses or only the
images is therefore right no more often than by chance.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from cbalign.data.datasets.generated.scene_captions import Phrase
from cbalign.data.datasets.generated.scene_table import NOTHING, WORDS, SceneTable, phrases, the
from cbalign.data.datasets.generated.scene_world import RELATIONS
from cbalign.data.datasets.schema import ENTAILMENT_LABELS

CONTRADICTION, NEUTRAL, ENTAILMENT = range(len(ENTAILMENT_LABELS))
TOPICS = ("colour", "kind", "size", "cell", "relation")


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """One sentence about one or two particular shapes.

    Attributes:
      topic: One of `TOPICS`.
      text: The sentence in English, without a period.
      subject: The shape it is about.
      word: The claimed value of the subject's attribute `topic`; for "relation" one of `RELATIONS`.
      other: The second shape of a relation.
    """

    topic: str
    text: str
    subject: Phrase
    word: str
    other: Phrase | None = None


def all_hypotheses() -> list[Hypothesis]:
    """All hypotheses, in a fixed order."""
    kinds, coloured, pairs = phrases("kind"), phrases("colour"), phrases("colour", "kind")
    subjects = {
        "colour": kinds + phrases("size", "kind"),
        "kind": coloured + phrases("size", "colour"),
        "size": kinds + coloured + pairs,
        "cell": kinds + coloured + pairs,
    }
    said = {"colour": "{}", "kind": "a {}", "size": "{}", "cell": "at {}"}
    simple = [
        Hypothesis(topic, f"{the(s)} is {said[topic].format(word)}", s, word)
        for topic, group in subjects.items()
        for s in group
        for word in WORDS[topic]
    ]
    return simple + [
        Hypothesis("relation", f"{the(a)} is {relation} {the(b)}", a, relation, b)
        for group in (kinds, coloured)
        for a, b in itertools.permutations(group, 2)
        for relation in RELATIONS
    ]


def label_scenes(hypothesis: Hypothesis, table: SceneTable) -> np.ndarray:
    """The label of a hypothesis for each scene: int8 [n], indices into `ENTAILMENT_LABELS`.

    `NOTHING` if several shapes match a description, so that "the" has no unique referent.
    """
    found = table.matches(hypothesis.subject)
    number = found.sum(axis=1)
    several, none = number > 1, number == 0
    if hypothesis.topic == "relation":
        other = table.matches(hypothesis.other)
        several = several | (other.sum(axis=1) > 1) | (found & other).any(axis=1)
        none = none | ~other.any(axis=1)
        holds = (found & table.in_relation(hypothesis.word, other)).any(axis=1)
    else:
        word = WORDS[hypothesis.topic].index(hypothesis.word)
        holds = table.attribute(hypothesis.topic, found) == word
    label = np.where(none, NEUTRAL, np.where(holds, ENTAILMENT, CONTRADICTION))
    return np.where(several, NOTHING, label).astype(np.int8)


def entailment_blocks(table: SceneTable, rng: np.random.Generator) -> Iterator[list[tuple[int, Hypothesis, int]]]:
    """Infinite blocks of nine (scene, hypothesis, label); no hypothesis is paired twice with a scene.

    Raises:
      ValueError: if a thousand consecutive draws give no new block; more scenes allow more examples.
    """
    hypotheses = all_hypotheses()
    labels = np.stack([label_scenes(hypothesis, table) for hypothesis in hypotheses])
    topic = np.array([TOPICS.index(hypothesis.topic) for hypothesis in hypotheses])
    failures = 0
    while True:
        block = None
        if len(table) >= 3:
            scenes = rng.choice(len(table), 3, replace=False)
            block = _latin_square(labels, topic, scenes, rng)
        if block is None:
            failures += 1
            if failures == 1000:
                raise ValueError(f"{len(table)} scenes have no more balanced blocks; use more scenes or fewer examples")
            continue
        failures = 0
        taken = [(int(scene), hypotheses[row], int(labels[row, scene])) for row in block for scene in scenes]  # pyrefly: ignore[unbound-name]
        labels[np.ix_(block, scenes)] = NOTHING  # pyrefly: ignore[unbound-name]
        yield [taken[i] for i in rng.permutation(len(taken))]


def _latin_square(labels, topic, scenes, rng) -> list[int] | None:
    """Three rows of `labels` that form a Latin square on the scenes, or None."""
    columns = labels[:, scenes]
    turn = rng.permutation(3)
    block = []
    for shift in range(3):
        rows = np.flatnonzero((columns == np.roll(turn, shift)).all(axis=1))
        if not len(rows):
            return None
        # A topic first, then one of its hypotheses: some topics have far more of them.
        rows = rows[topic[rows] == rng.choice(np.unique(topic[rows]))]
        block.append(int(rng.choice(rows)))
    return block
