"""Examples of retrieval: the best images for random texts, and the best texts for random images."""

from __future__ import annotations

import dataclasses
import textwrap

import numpy as np
from PIL import Image

from cbalign.data.image_files import BadImage, load_rgb
from cbalign.evaluation import encoders
from cbalign.evaluation.gallery import Gallery
from cbalign.report import plots
from cbalign.runs.workdir import Run

TOP_IMAGES, TOP_TEXTS = 5, 3
_CORRECT, _WRONG = "#1a8a3a", "#c9ced3"
_GREY, _TEXT = "#5f6b76", "#30363c"
_THUMBNAIL_SIDE = 144
# Inches: the width of the PNG, and the height of one example.
_WIDTH, _ROW = 12.6, 0.98


@dataclasses.dataclass(frozen=True)
class TextQuery:
    """A text and the images ranked best for it.

    Attributes:
      text: the query.
      images: records, best first.
      correct: whether each image matches the text.
      rank: of the first correct image, from 1; ties count against it.
    """

    text: str
    images: list[int]
    correct: list[bool]
    rank: int


@dataclasses.dataclass(frozen=True)
class ImageQuery:
    """An image, given by its record, and the texts ranked best for it; otherwise as `TextQuery`."""

    image: int
    texts: list[str]
    correct: list[bool]
    rank: int


@dataclasses.dataclass(frozen=True)
class RetrievalExamples:
    """Examples from one split.

    Attributes:
      data, split: their source.
      seed: of the random draw.
      images, texts: sizes of the gallery that is ranked.
      by_text, by_image: the examples.
      thumbnails: {record: image} of all records that are shown.
    """

    data: str
    split: str
    seed: int
    images: int
    texts: int
    by_text: list[TextQuery]
    by_image: list[ImageQuery]
    thumbnails: dict[int, Image.Image]


def draw_examples(
    run: Run, split: str, *, data: str = "", checkpoint: str = "best", count: int = 8, seed: int = 0
) -> RetrievalExamples:
    """Ranks a split by the contrastive score and draws examples at random.

    Args:
      run: of a task with a shared embedding space.
      split: of the run's data set, or of `data`.
      data: another data set.
      checkpoint: see `Run.params`.
      count: number of texts and of images to draw, at most all of them.
      seed: of the draw, which depends on nothing else.

    Raises:
      UserError: the data set, the split or the checkpoint does not exist.
    """
    params, ranked = run.params(checkpoint=checkpoint), run.split(split, data=data)
    gallery = Gallery.of(ranked.records, ranked.columns, captions_per_image=run.config.eval.captions_per_image)
    image_features, text_features = _features(run, params, ranked, gallery)
    scores, correct = image_features @ text_features.T, gallery.image_ids[:, np.newaxis] == gallery.text_ids
    draw = np.random.default_rng(seed)
    by_text = []
    for j in np.sort(draw.choice(len(text_features), min(count, len(text_features)), replace=False)):
        best = _best(scores[:, j], TOP_IMAGES)
        rank = _rank(scores[:, j], correct[:, j])
        by_text.append(TextQuery(gallery.texts[j], best, correct[best, j].tolist(), rank))
    by_image = []
    for i in np.sort(draw.choice(len(image_features), min(count, len(image_features)), replace=False)).tolist():
        best = _best(scores[i], TOP_TEXTS)
        texts = [gallery.texts[j] for j in best]
        by_image.append(ImageQuery(i, texts, correct[i, best].tolist(), _rank(scores[i], correct[i])))
    shown = {i for query in by_text for i in query.images} | {query.image for query in by_image}
    thumbnails = {i: _thumbnail(ranked.records.image(i)) for i in sorted(shown)}
    # pyrefly: ignore[bad-argument-count]
    return RetrievalExamples(data or run.config.data.name, split, seed, *scores.shape, by_text, by_image, thumbnails)


def _features(run: Run, params: dict, ranked, gallery: Gallery) -> tuple[np.ndarray, np.ndarray]:
    """Features of all images float32 [n, d] and of all texts [m, d] of a gallery."""
    functions = encoders.bind(run.task.compiled, params)
    size, batch_size = run.config.data.image_size, run.config.eval.batch_size
    images = [
        np.asarray(functions.encode_image(batch["image"])["feature"])[:valid]
        for batch, valid in ranked.batches(image_size=size, batch_size=batch_size)
    ]
    count, texts = len(gallery.texts), []
    for start in range(0, count, batch_size):
        rows = np.minimum(np.arange(start, start + batch_size), count - 1)
        texts.append(np.asarray(functions.encode_text(gallery.token_ids[rows])["feature"])[: count - start])
    return np.concatenate(images), np.concatenate(texts)


def _best(scores: np.ndarray, top: int) -> list[int]:
    return np.argsort(-scores, kind="stable")[:top].tolist()


def _rank(scores: np.ndarray, correct: np.ndarray) -> int:
    """The rank as `metrics.recall` counts it: wrong candidates of equal score come before the best correct one."""
    return 1 + int(np.sum(scores[~correct] >= scores[correct].max())) if correct.any() else len(scores) + 1


def _thumbnail(encoded: bytes) -> Image.Image:
    """An image reduced to the size at which it is shown."""
    try:
        image = Image.fromarray(load_rgb(encoded))
    except BadImage:
        # Evaluation ranks a grey image in the place of one that cannot be decoded.
        return Image.new("RGB", (_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), "grey")
    image.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), Image.Resampling.BICUBIC)
    return image


def examples_png(examples: RetrievalExamples) -> bytes:
    """The examples as one PNG: texts with their images on the left, images with their texts on the right."""
    height = _ROW * max(len(examples.by_text), len(examples.by_image)) + 1.05
    figure = plots.new_figure(_WIDTH, height)
    for left, title in ((0.15, "Text → best images"), (7.9, "Image → best texts")):
        figure.text(left / _WIDTH, 1 - 0.22 / height, title, size=12, weight="bold", va="center")
    for row, query in enumerate(examples.by_text):
        _draw_text_query(figure, examples, query, 1 - _ROW * (row + 1) / height, height)
    for row, query in enumerate(examples.by_image):
        _draw_image_query(figure, examples, query, 1 - _ROW * (row + 1) / height, height)
    figure.text(0.15 / _WIDTH, 0.2 / height, selection_note(examples), size=8, va="center", color=_GREY)
    return plots.to_png(figure)


def selection_note(examples: RetrievalExamples) -> str:
    """How the examples were chosen and how they are marked."""
    return (
        f"{examples.data} {examples.split}: drawn at random with seed {examples.seed}, not picked; contrastive ranking "
        f"among all {examples.images:,} images and {examples.texts:,} texts. Correct ones are green; the rank is that "
        "of the first correct one."
    )


def _draw_text_query(figure, examples: RetrievalExamples, query: TextQuery, middle: float, height: float) -> None:
    label = "\n".join(textwrap.wrap(query.text, 26, max_lines=4, placeholder=" …"))
    figure.text(0.15 / _WIDTH, middle, label, size=9.5, va="center", parse_math=False)
    for place, (i, correct) in enumerate(zip(query.images, query.correct)):
        _draw_image(figure, examples.thumbnails[i], 2.3 + 0.93 * place, middle, height, correct=correct)
    figure.text(7.15 / _WIDTH, middle, f"rank\n{query.rank}", size=8, va="center", ha="center", color=_GREY)


def _draw_image_query(figure, examples: RetrievalExamples, query: ImageQuery, middle: float, height: float) -> None:
    _draw_image(figure, examples.thumbnails[query.image], 7.9, middle, height)
    figure.text(9.05 / _WIDTH, middle, f"rank\n{query.rank}", size=8, va="center", ha="center", color=_GREY)
    for line, (text, correct) in enumerate(zip(query.texts, query.correct)):
        figure.text(
            9.4 / _WIDTH,
            middle + (1 - line) * 0.25 / height,
            f"{line + 1}. {_shortened(text)}",
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
