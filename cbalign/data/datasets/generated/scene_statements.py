"""True and false statements about two scenes side by side.

Statements come in blocks of two with two pairs of scenes; each statement is true of one pair and false of the other,
and likewise for each pair. A model that sees only the statements or only the images is therefore right no more often
than by chance. The two pairs of a statement form the group on which consistency is measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from cbalign.data.datasets.generated.scene_captions import NUMBERS, Phrase
from cbalign.data.datasets.generated.scene_table import WORDS, SceneTable, phrases, plural

TOPICS = ("side", "both", "neither", "one", "total", "more", "ground")

# Number of draws evaluated at a time.
_DRAWS = 256


@dataclasses.dataclass(frozen=True)
class Statement:
    """One sentence about a left and a right image.

    Attributes:
      topic: One of `TOPICS`.
      text: The sentence in English, without a period.
      subject: The shapes it is about; None for the ground.
      word: "left" or "right" ("side": the side with the shape; "more": the side with more of them), or the texture or
        colour of the ground.
      number: The total number of shapes ("total").
    """

    topic: str
    text: str
    subject: Phrase | None = None
    word: str = ""
    number: int = 0


def all_statements() -> list[Statement]:
    """All statements, in a fixed order."""
    kinds, coloured = phrases("kind"), phrases("colour")
    subjects = kinds + coloured + phrases("size", "kind") + phrases("colour", "kind")
    found = []
    for s in subjects:
        a = s.text(article=True)
        found += [Statement("side", f"there is {a} in the {side} picture", s, side) for side in ("left", "right")]
        found += [
            Statement("one", f"just one picture shows {a}", s),
            Statement("both", f"both pictures show {a}", s),
            Statement("neither", f"no picture shows {a}", s),
        ]
    for s in kinds + coloured:
        found += [Statement("total", f"there are {NUMBERS[n]} {plural(s)}", s, "", n) for n in (2, 3)]
    for s in [*kinds, *coloured, *phrases("size"), Phrase()]:
        found += [
            Statement("more", f"there are more {plural(s)} in the {side} picture", s, side)
            for side in ("left", "right")
        ]
    return found + [
        Statement("ground", f"both pictures are {word}", None, word) for word in WORDS["texture"] + WORDS["ground"]
    ]


def statement_holds(statement: Statement, left: SceneTable, right: SceneTable) -> np.ndarray:
    """Whether a statement is true of pairs of scenes: bool [n]; both tables have length n."""
    if statement.topic == "ground":
        name = "texture" if statement.word in WORDS["texture"] else "ground"
        word = WORDS[name].index(statement.word)
        return (getattr(left, name) == word) & (getattr(right, name) == word)
    counts = left.count(statement.subject), right.count(statement.subject)
    first, second = reversed(counts) if statement.word == "right" else counts
    return {
        "side": first > 0,
        "both": (first > 0) & (second > 0),
        "neither": first + second == 0,
        "one": (first > 0) != (second > 0),
        "total": first + second == statement.number,
        "more": first > second,
    }[statement.topic]


@dataclasses.dataclass(frozen=True)
class Judged:
    """One example: a statement, two scenes, and whether it is true of them.

    Attributes:
      statement: The statement.
      left, right: Indices of the scenes.
      label: Whether it is true.
      block, pair, sentence: Indices of the block, and of the pair and the statement within it.
    """

    statement: Statement
    left: int
    right: int
    label: bool
    block: int
    pair: int
    sentence: int


def statement_blocks(table: SceneTable, rng: np.random.Generator) -> Iterator[list[Judged]]:
    """Infinite blocks of four examples; no two scenes are paired twice.

    Raises:
      ValueError: if a thousand consecutive draws give no new block; more scenes allow more examples.
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
                raise ValueError(f"{len(table)} scenes have no more balanced blocks; use more scenes or fewer examples")
            continue
        failures = 0
        seen |= names
        taken = [
            Judged(statements[row], int(left), int(right), pair == sentence, block, pair, sentence)
            for sentence, row in enumerate(chosen)
            for pair, (left, right) in enumerate(pairs)
        ]
        block += 1
        yield [taken[i] for i in rng.permutation(len(taken))]


def _draws(statements: list[Statement], table: SceneTable, rng: np.random.Generator):
    """Infinite (two pairs of scenes int [2, 2], truth of every statement for each pair bool [statements, 2])."""
    while True:
        pairs = rng.integers(len(table), size=(_DRAWS, 2, 2))
        left, right = (table.take(pairs[..., side].ravel()) for side in (0, 1))
        holds = np.stack([statement_holds(statement, left, right) for statement in statements])
        yield from zip(pairs, holds.reshape(len(statements), _DRAWS, 2).swapaxes(0, 1))


def _two_statements(holds: np.ndarray, topic: np.ndarray, rng: np.random.Generator) -> list[int] | None:
    """Rows of `holds` bool [statements, 2]: one true of only the first pair, one of only the second; or None."""
    chosen = []
    for truth in ((True, False), (False, True)):
        rows = np.flatnonzero((holds == truth).all(axis=1))
        if not len(rows):
            return None
        # A topic first, then one of its statements: some topics have far more of them.
        rows = rows[topic[rows] == rng.choice(np.unique(topic[rows]))]
        chosen.append(int(rng.choice(rows)))
    return chosen
