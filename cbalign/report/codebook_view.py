"""What the codes of a run stand for: nearest images, words, agreement of the two modalities."""

from __future__ import annotations

import dataclasses

import numpy as np

from cbalign.evaluation.code_usage import CodeUsage, code_usage, texts_with_words, word_loadings
from cbalign.inference.codebook import TrainedCodebook
from cbalign.report.encoded_split import EncodedSplit

# A word in fewer texts says little of a code.
LEAST_TEXTS = 3


@dataclasses.dataclass(frozen=True)
class CodeCard:
    """One code.

    Attributes:
      code: its number.
      images, texts: how many use it as their likeliest code.
      agreement: see `CodeUsage`.
      nearest: images (records), the nearest by cosine first.
      words: (word, mean probability of the code given the texts that contain the word), best first.
    """

    code: int
    images: int
    texts: int
    agreement: float
    nearest: list[int]
    words: list[tuple[str, float]]


@dataclasses.dataclass(frozen=True)
class CodebookView:
    """The codebook on one split.

    Attributes:
      codes: float32 [K, d].
      usage: of all codes.
      cards: of the codes that are used most.
      image_codes, text_codes: int [n] and [m], the likeliest code of each.
    """

    codes: np.ndarray
    usage: CodeUsage
    cards: list[CodeCard]
    image_codes: np.ndarray
    text_codes: np.ndarray


def codebook_view(encoded: EncodedSplit, *, cards: int = 12, images: int = 5, words: int = 5) -> CodebookView:
    """Looks at the codebook of a run that trained it.

    Args:
      encoded: the split that the codes are shown by.
      cards: codes to describe.
      images, words: of each code.
    """
    codebook = TrainedCodebook.of(encoded.source)
    text_probabilities = codebook.probabilities(encoded.text_features)
    image_codes = np.argmax(codebook.probabilities(encoded.image_features), axis=1)
    text_codes = np.argmax(text_probabilities, axis=1)
    usage = code_usage(image_codes, text_codes, encoded.pairs, num_codes=len(codebook.codes))
    containing = texts_with_words(encoded.gallery.texts, least=LEAST_TEXTS)
    described = []
    for code in usage.most_used(cards):
        nearest = np.argsort(-(encoded.image_features @ codebook.codes[code]), kind="stable")[:images]
        described.append(
            CodeCard(
                code,
                int(usage.images[code]),
                int(usage.texts[code]),
                float(usage.agreement[code]),
                nearest.tolist(),
                word_loadings(text_probabilities[:, code], containing, words),
            )
        )
    return CodebookView(codebook.codes, usage, described, image_codes, text_codes)
