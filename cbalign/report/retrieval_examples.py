"""Examples of retrieval: the best images for texts, the best texts for images; hits and misses side by side."""

from __future__ import annotations

import dataclasses
import textwrap

import numpy as np
from PIL import Image

from cbalign.report import plots
from cbalign.report.encoded_split import EncodedSplit, rank

TOP_IMAGES, TOP_TEXTS = 5, 3
_CORRECT, _WRONG = "#1a8a3a", "#c9ced3"
_GREY, _TEXT = "#5f6b76", "#30363c"
# Inches: the width of the PNG, and the height of one example.
_WIDTH, _ROW = 12.6, 0.98


@dataclasses.dataclass(frozen=True)
class Ranking:
    """The best candidates for a query.

    Attributes:
      best: places of images (records) or of texts, best first.
      correct: whether each of them matches the query.
      rank: of the first correct one, from 1; ties count against it. None where no candidate is correct.
    """

    best: list[int]
    correct: list[bool]
    rank: int | None


@dataclasses.dataclass(frozen=True)
class Query:
    """A text that images are ranked for, or an image that texts are ranked for.

    Attributes:
      place: of the text or image (record).
      contrastive: among all candidates, by cosine.
      reranked: the best candidates by the sum of both scores; None where the matching head was never trained.
    """

    place: int
    contrastive: Ranking
    reranked: Ranking | None = None


@dataclasses.dataclass(frozen=True)
class RetrievalExamples:
    """Examples from one split, drawn at random.

    Attributes:
      by_text, by_image: the queries.
      seed: of the draw.
    """

    by_text: list[Query]
    by_image: list[Query]
    seed: int


@dataclasses.dataclass(frozen=True)
class HitsAndMisses:
    """Queries of one direction, drawn at random among those whose first candidate is correct, and among the others.

    Attributes:
      hits, misses: the queries.
      hit_share: share of all queries that are hits, recall at 1.
    """

    hits: list[Query]
    misses: list[Query]
    hit_share: float


def draw_examples(encoded: EncodedSplit, *, count: int = 8, seed: int = 0) -> RetrievalExamples:
    """Draws texts and images of a split at random, with their contrastive rankings.

    Args:
      encoded: the split.
      count: number of texts and of images to draw, at most all of them.
      seed: of the draw, which depends on nothing else.
    """
    draw, drawn = np.random.default_rng(seed), []
    for texts in (True, False):
        total = len(encoded.text_features if texts else encoded.image_features)
        places = np.sort(draw.choice(total, min(count, total), replace=False)).tolist()
        drawn.append([Query(place, _ranking(encoded, place, texts=texts)) for place in places])
    return RetrievalExamples(drawn[0], drawn[1], seed)


def hits_and_misses(encoded: EncodedSplit, *, count: int = 4, seed: int = 0) -> tuple[HitsAndMisses, HitsAndMisses]:
    """Hits and misses of both directions, (texts that images are ranked for, images that texts are ranked for).

    Args:
      encoded: the split.
      count: hits and misses to draw in each direction, fewer where there are no more.
      seed: of the draw.
    """
    draw, found = np.random.default_rng(seed), []
    for texts in (True, False):
        ranks = encoded.ranks(texts=texts)
        groups = []
        for group in (np.flatnonzero(ranks == 1), np.flatnonzero(ranks > 1)):
            places = np.sort(draw.choice(group, min(count, len(group)), replace=False)).tolist()
            groups.append([Query(place, _ranking(encoded, place, texts=texts)) for place in places])
        found.append(HitsAndMisses(groups[0], groups[1], float(np.mean(ranks == 1))))
    if not encoded.trains_matching:
        return found[0], found[1]
    shown = [(q.place, texts) for texts, both in zip((True, False), found) for q in (*both.hits, *both.misses)]
    margins = _margins(encoded, shown)

    def reranked(queries: list[Query], texts: bool) -> list[Query]:
        return [
            dataclasses.replace(query, reranked=_reranking(encoded, query.place, margins, texts=texts))
            for query in queries
        ]

    by_text, by_image = (
        HitsAndMisses(reranked(both.hits, texts), reranked(both.misses, texts), both.hit_share)
        for texts, both in zip((True, False), found)
    )
    return by_text, by_image


def _ranking(encoded: EncodedSplit, place: int, *, texts: bool) -> Ranking:
    scores, correct = encoded.row(place, texts=texts)
    best = _best(scores, TOP_IMAGES if texts else TOP_TEXTS)
    return Ranking(best, correct[best].tolist(), rank(scores, correct))


def _candidates(encoded: EncodedSplit, place: int, *, texts: bool) -> np.ndarray:
    """The candidates that the matching head re-ranks for a query, best first by the contrastive score."""
    scores, _ = encoded.row(place, texts=texts)
    return np.array(_best(scores, encoded.options.rerank_top_k))


def _margins(encoded: EncodedSplit, queries: list[tuple[int, bool]]) -> dict[tuple[int, int], float]:
    """{(image, text): logit of match minus that of no match} of the candidates of some queries (place, is a text)."""
    pairs = {
        (candidate, place) if texts else (place, candidate)
        for place, texts in queries
        for candidate in _candidates(encoded, place, texts=texts).tolist()
    }
    return encoded.match_margins(sorted(pairs)) if pairs else {}


def _reranking(encoded: EncodedSplit, place: int, margins: dict, *, texts: bool) -> Ranking:
    """The candidates by the sum of both scores, as `evaluate_retrieval` makes it."""
    scores, correct = encoded.row(place, texts=texts)
    candidates = _candidates(encoded, place, texts=texts)
    sums = np.array(
        [scores[c] / encoded.temperature + margins[(c, place) if texts else (place, c)] for c in candidates.tolist()]
    )
    order = _best(sums, TOP_IMAGES if texts else TOP_TEXTS)
    right = correct[candidates]
    return Ranking(candidates[order].tolist(), right[order].tolist(), rank(sums, right) if right.any() else None)


def _best(scores: np.ndarray, top: int) -> list[int]:
    return np.argsort(-scores, kind="stable")[:top].tolist()


def examples_png(encoded: EncodedSplit, examples: RetrievalExamples) -> bytes:
    """The examples as one PNG: texts with their images on the left, images with their texts on the right."""
    height = _ROW * max(len(examples.by_text), len(examples.by_image)) + 1.05
    figure = plots.new_figure(_WIDTH, height)
    for left, title in ((0.15, "Text → best images"), (7.9, "Image → best texts")):
        figure.text(left / _WIDTH, 1 - 0.22 / height, title, size=12, weight="bold", va="center")
    for row, query in enumerate(examples.by_text):
        _draw_text_query(figure, encoded, query, 1 - _ROW * (row + 1) / height, height)
    for row, query in enumerate(examples.by_image):
        _draw_image_query(figure, encoded, query, 1 - _ROW * (row + 1) / height, height)
    note = selection_note(encoded, examples.seed)
    figure.text(0.15 / _WIDTH, 0.2 / height, note, size=8, va="center", color=_GREY)
    return plots.to_png(figure)


def selection_note(encoded: EncodedSplit, seed: int) -> str:
    """How the examples were chosen and how they are marked."""
    return (
        f"{encoded.data} {encoded.split}: drawn at random with seed {seed}, not picked; contrastive ranking among all "
        f"{len(encoded.image_features):,} images and {len(encoded.text_features):,} texts. Correct ones are green; the "
        "rank is that of the first correct one."
    )


def _draw_text_query(figure, encoded: EncodedSplit, query: Query, middle: float, height: float) -> None:
    label = "\n".join(textwrap.wrap(encoded.gallery.texts[query.place], 26, max_lines=4, placeholder=" …"))
    figure.text(0.15 / _WIDTH, middle, label, size=9.5, va="center", parse_math=False)
    ranking = query.contrastive
    for place, (i, correct) in enumerate(zip(ranking.best, ranking.correct)):
        _draw_image(figure, encoded.thumbnail(i), 2.3 + 0.93 * place, middle, height, correct=correct)
    figure.text(7.15 / _WIDTH, middle, f"rank\n{ranking.rank}", size=8, va="center", ha="center", color=_GREY)


def _draw_image_query(figure, encoded: EncodedSplit, query: Query, middle: float, height: float) -> None:
    ranking = query.contrastive
    _draw_image(figure, encoded.thumbnail(query.place), 7.9, middle, height)
    figure.text(9.05 / _WIDTH, middle, f"rank\n{ranking.rank}", size=8, va="center", ha="center", color=_GREY)
    for line, (text, correct) in enumerate(zip(ranking.best, ranking.correct)):
        figure.text(
            9.4 / _WIDTH,
            middle + (1 - line) * 0.25 / height,
            f"{line + 1}. {_shortened(encoded.gallery.texts[text])}",
            size=9,
            va="center",
            color=_CORRECT if correct else _TEXT,
            weight="bold" if correct else "normal",
            parse_math=False,
        )


def _shortened(text: str) -> str:
    return text if len(text) <= 42 else text[:41].rstrip() + "…"


def _draw_image(
    figure, image: Image.Image, left: float, middle: float, height: float, *, correct: bool = False
) -> None:
    """Draws a framed image `left` inches from the left, centred vertically at `middle` in figure coordinates."""
    side = 0.82
    axis = figure.add_axes((left / _WIDTH, middle - side / 2 / height, side / _WIDTH, side / height))
    # Interpolated, as a browser shows small images.
    axis.imshow(image, interpolation="bicubic")
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(color=_CORRECT if correct else _WRONG, linewidth=2.6 if correct else 0.8)
