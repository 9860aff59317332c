"""Which codes a model uses: by images, by texts, by both sides of a pair; and the words whose texts choose a code."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class CodeUsage:
    """Use of K codes by n images, m texts and the pairs of an image with a text of its own.

    A code is used by an image or text whose likeliest code it is.

    Attributes:
      images, texts: int64 [K], how many use each code.
      agreement: float64 [K], 2 * pairs of which both sides use the code / (pairs whose image uses it + pairs whose text
        uses it), in [0, 1]; NaN where no pair uses it. 1: the code means the same for both modalities.
      agreeing: share of the pairs of which both sides use the same code.
      agreeing_by_chance: the same for images and texts paired at random, sum_k p_image(k) p_text(k).
    """

    images: np.ndarray
    texts: np.ndarray
    agreement: np.ndarray
    agreeing: float
    agreeing_by_chance: float

    @property
    def dead(self) -> int:
        """Codes that no image and no text uses."""
        return int(np.sum((self.images == 0) & (self.texts == 0)))

    @property
    def shared(self) -> int:
        """Codes that images and texts use."""
        return int(np.sum((self.images > 0) & (self.texts > 0)))

    @property
    def one_sided(self) -> tuple[int, int]:
        """(codes that images alone use, codes that texts alone use)."""
        return int(np.sum((self.images > 0) & (self.texts == 0))), int(np.sum((self.images == 0) & (self.texts > 0)))

    @property
    def effective(self) -> tuple[float, float]:
        """Exp of the entropy of the codes that (images, texts) use: K where all are used alike, 1 for a single one."""
        return _perplexity(self.images), _perplexity(self.texts)

    def most_used(self, count: int) -> list[int]:
        """The codes of the largest share of images plus share of texts, the first of equal ones first."""
        share = self.images / max(1, self.images.sum()) + self.texts / max(1, self.texts.sum())
        order = np.argsort(-share, kind="stable")[:count]
        return [int(code) for code in order if share[code] > 0]


def code_usage(image_codes: np.ndarray, text_codes: np.ndarray, pairs: np.ndarray, *, num_codes: int) -> CodeUsage:
    """Counts the use of codes.

    Args:
      image_codes: int [n], the likeliest code of each image.
      text_codes: int [m].
      pairs: int [p, 2], places of an image and of a text that belong together.
      num_codes: K.
    """
    left, right = image_codes[pairs[:, 0]], text_codes[pairs[:, 1]]
    either = np.bincount(left, minlength=num_codes) + np.bincount(right, minlength=num_codes)
    both = np.bincount(left[left == right], minlength=num_codes)
    images, texts = np.bincount(image_codes, minlength=num_codes), np.bincount(text_codes, minlength=num_codes)
    return CodeUsage(
        images,
        texts,
        np.where(either > 0, 2 * both / np.maximum(either, 1), np.nan),
        agreeing=float(np.mean(left == right)) if len(pairs) else float("nan"),
        agreeing_by_chance=float(images / max(1, images.sum()) @ (texts / max(1, texts.sum()))),
    )


def words_of(text: str) -> list[str]:
    """The words of a text, lower case, without punctuation."""
    return re.findall(r"\w+", text.lower())


def texts_with_words(texts: Sequence[str], *, least: int) -> dict[str, np.ndarray]:
    """{word: places of the texts that contain it}, of words in at least `least` texts and not in all of them."""
    found: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        for word in set(words_of(text)):
            found.setdefault(word, []).append(place)
    return {word: np.array(rows) for word, rows in sorted(found.items()) if least <= len(rows) < len(texts)}


def word_loadings(probabilities: np.ndarray, words: Mapping[str, np.ndarray], top: int) -> list[tuple[str, float]]:
    """The words that load most on a code: those whose texts give it the highest mean probability.

    Args:
      probabilities: float [m], of the code, given each text.
      words: from `texts_with_words`.
      top: words to return, best first.
    """
    loads = [(word, float(np.mean(probabilities[rows]))) for word, rows in words.items()]
    return sorted(loads, key=lambda load: (-load[1], load[0]))[:top]


def _perplexity(counts: np.ndarray) -> float:
    share = counts[counts > 0] / max(1, counts.sum())
    return float(np.exp(-np.sum(share * np.log(share))))
