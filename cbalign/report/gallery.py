"""Examples of retrieval: for random texts the best pictures, for random pictures the best texts."""

import dataclasses
import io
import textwrap

import numpy as np
from PIL import Image

from cbalign import runs
from cbalign.data import pipeline
from cbalign.data.sources.pictures import to_rgb
from cbalign.report import plots

TOP_PICTURES, TOP_TEXTS = 5, 3
RIGHT = "#1a8a3a"
_WRONG = "#c9ced3"
_SHOWN_SIDE = 144


@dataclasses.dataclass(frozen=True)
class TextQuery:
    """A text with the pictures ranked best for it.

    Attributes:
      text: the query.
      pictures: rows of the records, best first.
      right: whether each is right.
      rank: place of the first right picture, from 1, ties counted against it.
    """

    text: str
    pictures: list
    right: list
    rank: int


@dataclasses.dataclass(frozen=True)
class PictureQuery:
    """A picture with the texts ranked best for it; as `TextQuery`."""

    picture: int
    texts: list
    right: list
    rank: int


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Examples from one split.

    Attributes:
      data, split: where they come from.
      seed: of the draw.
      total: (pictures, texts) ranked among.
      by_text, by_picture: the examples.
      pictures: {row: PIL picture} of all that are shown.
    """

    data: str
    split: str
    seed: int
    total: tuple
    by_text: list
    by_picture: list
    pictures: dict


def make_gallery(run: runs.Run, split: str, *, data: str = "", checkpoint: str = "best", count: int = 8,
                 seed: int = 0) -> Gallery:
    """Ranks a split by the contrastive score and draws examples.

    Args:
      run: from `open_run`.
      split: of the run's data set, or of `data`.
      data: another data set.
      checkpoint: as for `Run.params`.
      count: texts, and pictures, to draw; fewer where there are no more.
      seed: of the draw; nothing else decides what is shown.

    Raises:
      UserError: no such data or checkpoint.
    """
    params = run.params(checkpoint=checkpoint)
    gallery = runs.GallerySet.of(run, split, data=data)
    images, texts = _features(run, params, gallery)
    scores, right = images @ texts.T, gallery.records.ids[:, np.newaxis] == gallery.text_ids
    draw = np.random.default_rng(seed)
    by_text = []
    for j in np.sort(draw.choice(len(texts), min(count, len(texts)), replace=False)):
        best = _best(scores[:, j], TOP_PICTURES)
        by_text.append(TextQuery(gallery.texts[j], best, right[best, j].tolist(), _rank(scores[:, j], right[:, j])))
    by_picture = []
    for i in np.sort(draw.choice(len(images), min(count, len(images)), replace=False)).tolist():
        best = _best(scores[i], TOP_TEXTS)
        named = [gallery.texts[j] for j in best]
        by_picture.append(PictureQuery(i, named, right[i, best].tolist(), _rank(scores[i], right[i])))
    shown = {i for query in by_text for i in query.pictures} | {query.picture for query in by_picture}
    pictures = {i: _picture(gallery.records.images[i]) for i in sorted(shown)}
    return Gallery(data or run.config.data.name, split, seed, scores.shape, by_text, by_picture, pictures)


def _features(run, params, gallery) -> tuple[np.ndarray, np.ndarray]:
    """Features of all pictures float32 [n, d] and texts [m, d] of a split."""
    functions = runs.bind(runs.model_functions(run.task.model), params)
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


def _picture(stored) -> Image.Image:
    """A stored picture, at most as large as it is shown."""
    picture = Image.fromarray(stored) if isinstance(stored, np.ndarray) else Image.open(io.BytesIO(stored))
    picture = to_rgb(picture)
    picture.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE), Image.Resampling.BICUBIC)
    return picture


def draw_gallery(gallery: Gallery) -> bytes:
    """The gallery as one PNG: texts with their pictures on the left, pictures with their texts on the right."""
    rows = max(len(gallery.by_text), len(gallery.by_picture))
    height = 0.98 * rows + 1.05
    figure = plots.new_figure(12.6, height)
    figure.text(0.012, 1 - 0.22 / height, "Text → best pictures", size=12, weight="bold", va="center")
    figure.text(0.625, 1 - 0.22 / height, "Picture → best texts", size=12, weight="bold", va="center")
    # Inches from the top of a row to places in the figure.
    for row, query in enumerate(gallery.by_text):
        middle = 1 - (0.98 * row + 0.98) / height
        label = "\n".join(textwrap.wrap(query.text, 26, max_lines=3, placeholder=" …"))
        figure.text(0.012, middle, label, size=9.5, va="center")
        for place, (i, right) in enumerate(zip(query.pictures, query.right)):
            _framed(figure, gallery.pictures[i], 2.3 + 0.93 * place, middle, height, RIGHT if right else _WRONG)
        figure.text(0.565, middle, f"rank\n{query.rank}", size=8, va="center", ha="center", color="#5f6b76")
    for row, query in enumerate(gallery.by_picture):
        middle = 1 - (0.98 * row + 0.98) / height
        _framed(figure, gallery.pictures[query.picture], 7.9, middle, height, _WRONG)
        for line, (text, right) in enumerate(zip(query.texts, query.right)):
            shown = textwrap.shorten(text, 46, placeholder=" …")
            figure.text(0.70, middle + (1 - line) * 0.24 / height, f"{line + 1}. {shown}", size=9, va="center",
                        color=RIGHT if right else "#30363c", weight="bold" if right else "normal")
        figure.text(0.985, middle, f"rank\n{query.rank}", size=8, va="center", ha="center", color="#5f6b76")
    figure.text(0.012, 0.2 / height, note(gallery), size=8, va="center", color="#5f6b76")
    return plots.to_png(figure)


def note(gallery: Gallery) -> str:
    """What a reader must know of the choice."""
    pictures, texts = gallery.total
    return (f"{gallery.data} {gallery.split}: drawn at random with seed {gallery.seed}, not picked; contrastive ranking "
            f"among all {pictures:,} pictures and {texts:,} texts. Right ones are green; rank is that of the first right "
            "one.")


def _framed(figure, picture, left: float, middle: float, height: float, colour: str) -> None:
    """Puts a picture with a frame at `left` inches from the left, centred at `middle` of the figure's height."""
    side = 0.82
    axis = figure.add_axes((left / 12.6, middle - side / 2 / height, side / 12.6, side / height))
    # Seen as an interpolated picture, 32 pixels look as they do in a browser.
    axis.imshow(picture, interpolation="bicubic")
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(color=colour, linewidth=2.6 if colour == RIGHT else 0.8)
