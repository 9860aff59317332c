"""What the page asks of the model: search, explanations, matching, predictions, classes typed by hand."""

from __future__ import annotations

import dataclasses
import functools
import pathlib

import numpy as np

from cbalign.data.image_files import MAX_PIXELS, BadImage, load_rgb
from cbalign.errors import UserError
from cbalign.inference import Encoder, Explanation, Index, Model, Predictor, Source, TopCodes, TrainedCodebook
from cbalign.inference.classification import checked_classes, encode_classes, rank_classes
from cbalign.inference.image_index import best_rows
from cbalign.report.demo.images import ShownImages

MAX_TEXT = 10_000
"""Characters of a text; what comes after them is left out, and said to be."""
MAX_CLASSES = 200
CODES = 4
"""Codes shown of each side, and images of each code."""


@dataclasses.dataclass(frozen=True)
class Query:
    """What is searched for.

    Attributes:
      text: the words; "" for an image, or for nothing.
      feature: float32 [d]; None for nothing, which shows the images in their order.
      notes: what the model does not see of the text.
    """

    text: str = ""
    feature: np.ndarray | None = None
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Found:
    """The rows that a query finds, best first, and their cosines; no cosines for an empty query.

    Attributes:
      rows: of the images.
      scores: of the rows.
      enough: how many images reach the least score.
    """

    rows: list[int]
    scores: list[float] | None
    enough: int


class Answers:
    """A model and the images it is asked about.

    Args:
      source: of the model.
      encoder: of the same; None where it has no shared embedding space.
      images: to search, and to choose from.
    """

    def __init__(self, source: Source, encoder: Encoder | None, images: ShownImages):
        self.source, self.task, self.images = source, source.task, images
        self._encoder, self._model = encoder, Model(source)

    @property
    def searches(self) -> bool:
        """Whether images and texts share an embedding space."""
        return self._encoder is not None

    def text_query(self, text: str) -> Query:
        """The query of a text."""
        text, notes = _usable_text(text)
        if not text:
            return Query()
        feature, warnings = self._encoder.text(text)
        return Query(text, feature, (*notes, *(_shortened(warning) for warning in warnings)))

    def image_query(self, file: pathlib.Path) -> Query:
        """The query of an uploaded image.

        Raises:
          UserError: it cannot be used.
        """
        return Query("", self._encoder.image(uploaded_pixels(file)))

    def find(self, query: Query, *, least: float, count: int) -> Found:
        """The images that fit a query best; equal ones in the order of their names.

        Args:
          query: what is searched for.
          least: score of the images that are found.
          count: images to return.
        """
        if query.feature is None:
            return Found(list(range(min(count, len(self.images)))), None, len(self.images))
        scores = self.images.features @ query.feature
        rows = [int(row) for row in best_rows(scores, count) if scores[row] >= least]
        return Found(rows, [float(scores[row]) for row in rows], int(np.sum(scores >= least)))

    def explain(self, pixels: np.ndarray, text: str) -> Explanation:
        """See `Model.explain`.

        Raises:
          UserError: there is no text.
        """
        return self._model.explain(pixels, _needed_text(text, "a text"), top=CODES)

    def codes(self, feature: np.ndarray) -> TopCodes | None:
        """The likeliest codes of a feature; None where the codebook was never trained."""
        return self._codebook.top(feature, CODES) if self._codebook else None

    def code_images(self, code: int) -> list[int]:
        """The rows of the images that lie nearest to a code."""
        return self._nearest[code] if code in self._nearest else self._nearest.setdefault(code, self._near(code))

    def predict(self, files: list[pathlib.Path | None], text: str) -> tuple[list[tuple[str, float]], list[str]]:
        """([(answer, probability)], best first, and notes on what the model does not see); see `Model.predict`.

        Raises:
          UserError: an image or the text is missing or cannot be used.
        """
        if None in files:
            raise UserError("choose an image, or drop one" if len(files) == 1 else f"choose {len(files)} images")
        pixels = [uploaded_pixels(file) for file in files if file]
        return self._predictor.with_notes(pixels, _needed_text(text, self.task.prediction_input), top=5)

    def classify(
        self, file: pathlib.Path | None, names: str, template: str
    ) -> tuple[list[tuple[str, float]], list[str]]:
        """([(class, probability)], best first, and notes) of classes typed by hand; see `Model.classify`.

        Args:
          file: the image.
          names: one class a line, or several separated by commas.
          template: a text with {} for the class.

        Raises:
          UserError: an image or two classes are missing, or the template has no {}.
        """
        if file is None:
            raise UserError("choose an image, or drop one")
        text, _ = _usable_text(names)
        classes = list(dict.fromkeys(filter(None, (name.strip() for name in text.replace(",", "\n").split("\n")))))
        if len(classes) < 2:
            raise UserError("name two classes or more, one a line")
        if len(classes) > MAX_CLASSES:
            raise UserError(f"{len(classes)} classes are more than {MAX_CLASSES}; leave some out")
        template = template.strip() or "{}"
        if "{}" not in template or len(template) > 200:
            raise UserError("the template is a short text with {} where the class goes")
        features, notes = encode_classes(self._encoder, checked_classes(classes), (template,))
        image = self._encoder.image(uploaded_pixels(file))[np.newaxis]
        (ranked,) = rank_classes(self._encoder, image, classes, features, len(classes))
        return ranked, [_shortened(note) for note in notes]

    @functools.cached_property
    def _predictor(self) -> Predictor:
        return Predictor(self.source)

    @functools.cached_property
    def _codebook(self) -> TrainedCodebook | None:
        return TrainedCodebook.of(self.source) if self.searches and self.task.trains_codebook else None

    @functools.cached_property
    def _nearest(self) -> dict[int, list[int]]:
        return {}

    def _near(self, code: int) -> list[int]:
        names, features = [str(row) for row in range(len(self.images))], self.images.features
        return [int(hit.path) for hit in self._codebook.neighbours(code, Index(names, features, []), CODES)[0]]


def uploaded_pixels(file: pathlib.Path) -> np.ndarray:
    """An uploaded image, uint8 [h, w, 3].

    Raises:
      UserError: it is no image, or a very large one.
    """
    try:
        return load_rgb(file, max_pixels=MAX_PIXELS)
    except BadImage as error:
        limit = f", more than {MAX_PIXELS // 1_000_000} megapixels" if str(error) == "too large" else ""
        raise UserError(f"this file cannot be used as an image ({error}{limit}); choose another one") from error


def _usable_text(text: str | None) -> tuple[str, tuple[str, ...]]:
    """(the text without what is too much of it, notes)."""
    text = (text or "").strip()
    # Half a surrogate pair is no character; tokenizers refuse it.
    text = text.encode(errors="replace").decode()
    if len(text) <= MAX_TEXT:
        return text, ()
    return text[:MAX_TEXT], (f"only the first {MAX_TEXT:,} characters are used",)


def _needed_text(text: str, what: str) -> str:
    text, _ = _usable_text(text)
    if not text:
        raise UserError(f"type {what}")
    return text


def _shortened(sentence: str, most: int = 200) -> str:
    """A sentence that may quote a long text."""
    return sentence if len(sentence) <= most else f"{sentence[: most // 2]} … {sentence[-most // 2 :]}"
