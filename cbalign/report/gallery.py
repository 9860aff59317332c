"""Examples of retrieval: for random texts the best images, for random images the best texts."""

import dataclasses
import io
import textwrap

import numpy as np
from PIL import Image

from cbalign.runs.ranking import GallerySet, bind, model_functions
from cbalign.runs.workdir import Run
from cbalign.data import pipeline
from cbalign.data.image_files import to_rgb
from cbalign.report import plots

TOP_IMAGES, TOP_TEXTS = 5, 3
RIGHT = "#1a8a3a"
_WRONG = "#c9ced3"
_SHOWN_SIDE = 144
_GREY = "#5f6b76"
# Inches: the width of the PNG, and the height of one example.
_WIDTH, _ROW = 12.6, 0.98


@dataclasses.dataclass(frozen=True)
class TextQuery:
    """A text with the images ranked best for it.

    Attributes:
      text: the query.
      images: rows of the records, best first.
      right: whether each is right.
      rank: place of the first right image, from 1, ties counted against it.
    """

    text: str
    images: list
    right: list
    rank: int


@dataclasses.dataclass(frozen=True)
class ImageQuery:
    """An image with the texts ranked best for it; as `TextQuery`."""

    image: int
    texts: list
    right: list
    rank: int


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Examples from one split.

    Attributes:
      data, split: where they come from.
      seed: of the draw.
      total: (images, texts) ranked among.
      by_text, by_image: the examples.
      thumbnails: {row: PIL image} of all that are shown.
    """

    data: str
    split: str
    seed: int
    total: tuple
    by_text: list
    by_image: list
    thumbnails: dict


def make_gallery(run: Run, split: str, *, data: str = "", checkpoint: str = "best", count: int = 8,
                 seed: int = 0) -> Gallery:
    """Ranks a split by the contrastive score and draws examples.

    Args:
      run: from `open_run`.
      split: of the run's data set, or of `data`.
      data: another data set.
      checkpoint: as for `Run.params`.
      count: texts, and images, to draw; fewer where there are no more.
      seed: of the draw; nothing else decides what is shown.

    Raises:
      UserError: no such data or checkpoint.
    """
    params = run.params(checkpoint=checkpoint)
    gallery = GallerySet.of(run, split, data=data)
    images, texts = _features(run, params, gallery)
    scores, right = images @ texts.T, gallery.records.ids[:, np.newaxis] == gallery.text_ids
    draw = np.random.default_rng(seed)
    by_text = []
    for j in np.sort(draw.choice(len(texts), min(count, len(texts)), replace=False)):
        best = _best(scores[:, j], TOP_IMAGES)
        by_text.append(TextQuery(gallery.texts[j], best, right[best, j].tolist(), _rank(scores[:, j], right[:, j])))
    by_image = []
    for i in np.sort(draw.choice(len(images), min(count, len(images)), replace=False)).tolist():
        best = _best(scores[i], TOP_TEXTS)
        named = [gallery.texts[j] for j in best]
        by_image.append(ImageQuery(i, named, right[i, best].tolist(), _rank(scores[i], right[i])))
    shown = {i for query in by_text for i in query.images} | {query.image for query in by_image}
    thumbnails = {i: _image(gallery.records.images[i]) for i in sorted(shown)}
    return Gallery(data or run.config.data.name, split, seed, scores.shape, by_text, by_image, thumbnails)


def _features(run, params, gallery) -> tuple[np.ndarray, np.ndarray]:
    """Features of all images float32 [n, d] and texts [m, d] of a split."""
    functions = bind(model_functions(run.task.model), params)
    size, batch = run.config.data.image_size, run.config.eval.batch_size
    images = [np.asarray(functions.encode_image(pixels)["feature"])[:valid]
              for pixels, valid in pipeline.eval_images(gallery.records, image_size=size, batch_size=batch)]
    count, texts = len(gallery.texts), []
    for start in range(0, count, batch):
        rows = np.minimum(np.arange(start, start + batch), count - 1)
        texts.append(np.asarray(functions.encode_text(gallery.token_ids[rows])["feature"])[:count - start])
    return np.concatenate(images), np.concatenate(texts)


def _best(scores, top) -> list:
    return np.argsort(-scores, kind="stable")[:top].tolist()


def _rank(scores, right) -> int:
    """As `metrics.recall` counts: wrong candidates of equal score stand before the best right one."""
    return 1 + int(np.sum(scores[~right] >= scores[right].max())) if right.any() else len(scores) + 1


def _image(stored) -> Image.Image:
    """A stored image, at most as large as it is shown."""
    image = Image.fromarray(stored) if isinstance(stored, np.ndarray) else Image.open(io.BytesIO(stored))
    image = to_rgb(image)
    image.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE), Image.Resampling.BICUBIC)
    return image


def draw_gallery(gallery: Gallery) -> bytes:
    """The gallery as one PNG: texts with their images on the left, images with their texts on the right."""
    height = _ROW * max(len(gallery.by_text), len(gallery.by_image)) + 1.05
    figure = plots.new_figure(_WIDTH, height)
    for left, title in ((0.15, "Text → best images"), (7.9, "Image → best texts")):
        figure.text(left / _WIDTH, 1 - 0.22 / height, title, size=12, weight="bold", va="center")
    for row, query in enumerate(gallery.by_text):
        _draw_text_query(figure, gallery, query, 1 - _ROW * (row + 1) / height, height)
    for row, query in enumerate(gallery.by_image):
        _draw_image_query(figure, gallery, query, 1 - _ROW * (row + 1) / height, height)
    figure.text(0.15 / _WIDTH, 0.2 / height, note(gallery), size=8, va="center", color=_GREY)
    return plots.to_png(figure)


def _draw_text_query(figure, gallery, query, middle: float, height: float) -> None:
    label = "\n".join(textwrap.wrap(query.text, 26, max_lines=4, placeholder=" …"))
    figure.text(0.15 / _WIDTH, middle, label, size=9.5, va="center", parse_math=False)
    for place, (i, right) in enumerate(zip(query.images, query.right)):
        _framed(figure, gallery.thumbnails[i], 2.3 + 0.93 * place, middle, height, RIGHT if right else _WRONG)
    figure.text(7.15 / _WIDTH, middle, f"rank\n{query.rank}", size=8, va="center", ha="center", color=_GREY)


def _draw_image_query(figure, gallery, query, middle: float, height: float) -> None:
    _framed(figure, gallery.thumbnails[query.image], 7.9, middle, height, _WRONG)
    figure.text(9.05 / _WIDTH, middle, f"rank\n{query.rank}", size=8, va="center", ha="center", color=_GREY)
    for line, (text, right) in enumerate(zip(query.texts, query.right)):
        figure.text(9.4 / _WIDTH, middle + (1 - line) * 0.25 / height, f"{line + 1}. {_shortened(text)}", size=9,
                    va="center", color=RIGHT if right else "#30363c", weight="bold" if right else "normal",
                    parse_math=False)


def _shortened(text: str) -> str:
    return text if len(text) <= 42 else text[:41].rstrip() + "…"


def note(gallery: Gallery) -> str:
    """What a reader must know of the choice."""
    images, texts = gallery.total
    return (f"{gallery.data} {gallery.split}: drawn at random with seed {gallery.seed}, not picked; contrastive "
            f"ranking among all {images:,} images and {texts:,} texts. Right ones are green; rank is that of the "
            "first right one.")


def _framed(figure, image, left: float, middle: float, height: float, colour: str) -> None:
    """Puts an image with a frame at `left` inches from the left, centred at `middle` of the figure's height."""
    side = 0.82
    axis = figure.add_axes((left / _WIDTH, middle - side / 2 / height, side / _WIDTH, side / height))
    # Seen as an interpolated image, 32 pixels look as they do in a browser.
    axis.imshow(image, interpolation="bicubic")
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(color=colour, linewidth=2.6 if colour == RIGHT else 0.8)
