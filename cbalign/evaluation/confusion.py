"""What retrieval confuses: concepts with concepts, and words with words."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from cbalign.evaluation.code_usage import words_of


@dataclasses.dataclass(frozen=True)
class Confusion:
    """Images of one concept whose best text is of another.

    Attributes:
      image: the place of one of these images, that with the largest margin.
      text: the place of the text that is ranked first for it.
      own_text: the place of its own best text.
      count, of: so many of the images of the concept, of so many.
      margin: score of `text` minus that of `own_text`, 0 or more.
      mutual: whether an image of the other concept has a first text of this one.
    """

    image: int
    text: int
    own_text: int
    count: int
    of: int
    margin: float
    mutual: bool


def confused_concepts(scores: np.ndarray, image_ids: np.ndarray, text_ids: np.ndarray, top: int) -> list[Confusion]:
    """The concepts, told apart by ids, that are most often taken for another one; equal counts by margin.

    Args:
      scores: float [n, m]; ties count against the right text, as in `metrics.recall`.
      image_ids: int [n].
      text_ids: int [m].
      top: entries to return.
    """
    found: dict[tuple[int, int], list[tuple[float, int, int, int]]] = {}
    for image, best, best_own in _misses(scores, image_ids, text_ids):
        key = (int(image_ids[image]), int(text_ids[best]))
        margin = float(scores[image][best] - scores[image][best_own])
        found.setdefault(key, []).append((margin, image, best, best_own))
    counts = collections.Counter(np.asarray(image_ids).tolist())
    entries = []
    for (true, taken), cases in found.items():
        margin, image, text, own_text = max(cases, key=lambda case: (case[0], -case[1]))
        mutual = (taken, true) in found
        entries.append(Confusion(image, text, own_text, len(cases), counts[true], margin, mutual))
    return sorted(entries, key=lambda entry: (-entry.count, -entry.margin, entry.image))[:top]


def confused_words(misses: Iterable[tuple[str, str]], top: int) -> list[tuple[str, str, float]]:
    """Words that stand for one another in misses: [(word of the right text, word of the found one, count)].

    A miss counts one in all, shared by the pairs of a word that only the right text has and a word that only the found
    text has; misses without such a pair are left out.

    Args:
      misses: (right text, found text) of each.
      top: pairs to return, the most frequent first.
    """
    counts: dict[tuple[str, str], float] = collections.defaultdict(float)
    for right, found in misses:
        lost, gained = set(words_of(right)) - set(words_of(found)), set(words_of(found)) - set(words_of(right))
        for one in lost:
            for other in gained:
                counts[one, other] += 1 / (len(lost) * len(gained))
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:top]
    return [(one, other, count) for (one, other), count in ordered]


def first_misses(scores: np.ndarray, image_ids: np.ndarray, text_ids: np.ndarray, texts: Sequence[str]):
    """Yields (right text, found text) of each image whose first text is not its own; the right one is its best own."""
    for _, best, best_own in _misses(scores, image_ids, text_ids):
        yield texts[best_own], texts[best]


def _misses(scores: np.ndarray, image_ids: np.ndarray, text_ids: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Yields (image, its best text of others, its own best text) where the first scores no less than the second."""
    for image, row in enumerate(scores):
        own = text_ids == image_ids[image]
        if not own.any() or own.all():
            continue
        best_own = int(np.argmax(np.where(own, row, -np.inf)))
        best = int(np.argmax(np.where(own, -np.inf, row)))
        if row[best] >= row[best_own]:
            yield image, best, best_own
