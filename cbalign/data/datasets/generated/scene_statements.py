"""Statements about two scenes side by side, true or not.

Statements come in blocks of two with two pairs of scenes, each statement true of one pair and false of the other, each
pair likewise. So neither who knows the statements alone nor who knows the images alone, however well, is right more
often than by chance; and each statement has a group of two pairs, by which consistency is measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from cbalign.data.datasets.generated.scene_captions import NUMBERS, Phrase
from cbalign.data.datasets.generated.scene_table import WORDS, SceneTable, phrases, plural

TOPICS = ("side", "both", "neither", "one", "total", "more", "ground")

# Draws that are judged together.
_DRAWS = 256


@dataclasses.dataclass(frozen=True)
class Statement:
    """One sentence about a left and a right image.

    Attributes:
      topic: One of `TOPICS`.
      text: Its English, without a full stop.
      subject: The shapes it is about; None for the ground.
      word: "left" or "right" ("side": where; "more": where there are more), the ground's texture or colour.
      number: How many there are in all ("total").
    """

    topic: str
    text: str
    subject: Phrase | None = None
    word: str = ""
    number: int = 0


def all_statements() -> list[Statement]:
    """All there are, in a fixed order."""
    kinds, coloured = phrases("kind"), phrases("colour")
    subjects = kinds + coloured + phrases("size", "kind") + phrases("colour", "kind")
    found = []
    for s in subjects:
        a = s.text(article=True)
        found += [Statement("side", f"there is {a} in the {side} picture", s, side) for side in ("left", "right")]
        found += [Statement("one", f"just one picture shows {a}", s), Statement("both", f"both pictures show {a}", s),
                  Statement("neither", f"no picture shows {a}", s)]
    for s in kinds + coloured:
        found += [Statement("total", f"there are {NUMBERS[n]} {plural(s)}", s, "", n) for n in (2, 3)]
    for s in [*kinds, *coloured, *phrases("size"), Phrase()]:
        found += [Statement("more", f"there are more {plural(s)} in the {side} picture", s, side)
                  for side in ("left", "right")]
    return found + [Statement("ground", f"both pictures are {word}", None, word)
                    for word in WORDS["texture"] + WORDS["ground"]]


def statement_holds(statement: Statement, left: SceneTable, right: SceneTable) -> np.ndarray:
    """Whether a statement is true of pairs of scenes: bool [n]; the tables are of one length."""
    if statement.topic == "ground":
        name = "texture" if statement.word in WORDS["texture"] else "ground"
        word = WORDS[name].index(statement.word)
        return (getattr(left, name) == word) & (getattr(right, name) == word)
    counts = left.count(statement.subject), right.count(statement.subject)
    first, second = reversed(counts) if statement.word == "right" else counts
    return {
        "side": first > 0, "both": (first > 0) & (second > 0), "neither": first + second == 0,
        "one": (first > 0) != (second > 0), "total": first + second == statement.number, "more": first > second,
    }[statement.topic]


@dataclasses.dataclass(frozen=True)
class Judged:
    """One example: a statement, two scenes, and whether it is true of them.

    Attributes:
      statement: What is said.
      left, right: Scenes, by number.
      label: Whether it is true.
      block, pair, sentence: Numbers of the block, and of the pair and the statement within it.
    """

    statement: Statement
    left: int
    right: int
    label: bool
    block: int
    pair: int
    sentence: int


def statement_blocks(table: SceneTable, rng: np.random.Generator) -> Iterator[list[Judged]]:
    """Endless blocks of four examples; no two scenes are paired twice.

    Raises:
      ValueError: where a thousand draws in a row give no new block; more scenes allow for more examples.
    """
    statements = all_statements()
    topic = np.array([TOPICS.index(statement.topic) for statement in statements])
    seen, block, failures = set(), 0, 0
    for pairs, holds in _draws(statements, table, rng):
        names = {frozenset(pair) for pair in pairs.tolist()}
        chosen = None
        if len(set(pairs.ravel().tolist())) == 4 and not names & seen:
            chosen = _two_statements(holds, topic, rng)
        if chosen is None:
            failures += 1
            if failures == 1000:
                raise ValueError(f"{len(table)} scenes have no more balanced blocks; give more scenes or fewer examples")
            continue
        failures = 0
        seen |= names
        taken = [Judged(statements[row], int(left), int(right), pair == sentence, block, pair, sentence)
                 for sentence, row in enumerate(chosen) for pair, (left, right) in enumerate(pairs)]
        block += 1
        yield [taken[i] for i in rng.permutation(len(taken))]


def _draws(statements: list[Statement], table: SceneTable, rng: np.random.Generator):
    """Endless (two pairs of scenes int [2, 2], the truth of all statements of them bool [statements, 2])."""
    while True:
        pairs = rng.integers(len(table), size=(_DRAWS, 2, 2))
        left, right = (table.take(pairs[..., side].ravel()) for side in (0, 1))
        holds = np.stack([statement_holds(statement, left, right) for statement in statements])
        yield from zip(pairs, holds.reshape(len(statements), _DRAWS, 2).swapaxes(0, 1))


def _two_statements(holds: np.ndarray, topic: np.ndarray, rng: np.random.Generator) -> list[int] | None:
    """Rows of `holds` bool [statements, 2]: one true of the first pair alone, one of the second alone; or None."""
    chosen = []
    for truth in ((True, False), (False, True)):
        rows = np.flatnonzero((holds == truth).all(axis=1))
        if not len(rows):
            return None
        # First a topic, then one of its statements: some topics have many more.
        rows = rows[topic[rows] == rng.choice(np.unique(topic[rows]))]
        chosen.append(int(rng.choice(rows)))
    return chosen
