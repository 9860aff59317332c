"""What several tabs of the page share: places for images, images to choose from, errors as text, pairs in detail."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import gradio as gr
import numpy as np

from cbalign.errors import UserError
from cbalign.inference import Explanation, TopCodes
from cbalign.report.demo import markup
from cbalign.report.demo.answers import Answers
from cbalign.report.demo.images import ShownImages
from cbalign.report.inline import reduced

ONE_AT_A_TIME = dict(concurrency_limit=1, concurrency_id="model", api_visibility="private")
"""Of every event that asks the model."""
GRID = dict(object_fit="contain", height="auto", allow_preview=False, interactive=False, buttons=[], show_label=False)
"""Of every grid of images."""

_CHOICE = 16
_SIDE_OF_CHOSEN = 1024


def told(answer: Callable, *, where: Any, clear: tuple = ()) -> Callable:
    """An event's function whose user errors are shown as text.

    Args:
      answer: the function; returns {component: value}.
      where: the part of the page for the message.
      clear: parts that are emptied then.
    """

    @functools.wraps(answer)
    def told_answer(*values):
        try:
            return answer(*values)
        except UserError as error:
            message = str(error)
            return {where: markup.note(f"{message[:1].upper()}{message[1:]}.")} | dict.fromkeys(clear)

    return told_answer


def upload(label: str, name: str, *, height: int) -> gr.Image:
    """A place for an image; the event's function gets the path of the uploaded file, or None."""
    image = gr.Image(
        label=label, type="filepath", sources=["upload", "clipboard"], height=height, buttons=[], elem_id=name
    )

    # The file as it came: the framework's own step decodes it, whatever its pixels. Set on the object, since the
    # framework writes a stub file beside the source of each subclass.
    def preprocess(payload):
        return pathlib.Path(payload.path) if payload is not None and payload.path else None

    image.preprocess = preprocess
    return image


def thumbnails(images: ShownImages, rows: list[int], folder: pathlib.Path) -> tuple[list[Any], list[str]]:
    """([what a grid shows of each image], why some are not shown); a grey square stands for those."""
    shown, notes = [], []
    for row in rows:
        try:
            shown.append(str(images.thumbnail(row, folder / "thumbnails")))
        except UserError as error:
            shown.append(np.full((64, 64, 3), 128, np.uint8))
            notes.append(str(error))
    return shown, notes


def image_choice(answers: Answers, folder: pathlib.Path, name: str) -> list[gr.Image]:
    """Places for as many images as the task takes, and some of the folder's to choose from."""
    images, count = answers.images, answers.task.images_per_record
    labels = ["Image"] if count == 1 else ["Left image", "Right image"]
    with gr.Row():
        places = [upload(label, f"{name}-image-{i}", height=260) for i, label in enumerate(labels)]
    # Spread over the folder, since neighbours by name are often alike.
    rows = np.unique(np.linspace(0, len(images) - 1, min(_CHOICE, len(images))).astype(int)).tolist()
    gr.HTML(markup.note("or click one of these" if count == 1 else "or click two of these, the left image first"))
    choice = gr.Gallery(
        value=thumbnails(images, rows, folder)[0], columns=8, elem_id=f"{name}-choice", elem_classes="cb-choice", **GRID
    )

    def choose(event: gr.SelectData, *values):
        if not isinstance(event.index, int) or not 0 <= event.index < len(rows):
            return {}
        empty = [place for place, value in enumerate(values) if value is None]
        pixels = images.pixels(rows[event.index])
        return {places[empty[0] if empty else -1]: np.asarray(reduced(pixels, _SIDE_OF_CHOSEN))}

    choice.select(choose, places, places, trigger_mode="always_last", **ONE_AT_A_TIME)
    return places


def pair_of_row(answers: Answers, row: int, text: str, feature: np.ndarray | None) -> str:
    """One of the folder's images in detail, beside a query.

    Args:
      row: of the image.
      text: of the query, "" for none.
      feature: float32 [d] of the query; None for none.
    """
    images = answers.images
    scores = [] if feature is None else [("cosine", f"{float(images.features[row] @ feature):.3f}")]
    sides = [("Of the image", answers.codes(images.features[row]))]
    if feature is not None:
        sides.append(("Of the query", answers.codes(feature)))
    pixels = images.pixels(row)
    return pair_html(
        answers,
        pixels,
        name=images.shown_name(row),
        captions=images.captions.get(images.names[row], []),
        scores=scores,
        explanation=answers.explain(pixels, text) if text else None,
        sides=sides,
    )


def pair_html(
    answers: Answers,
    pixels: np.ndarray,
    *,
    name: str,
    captions: list[str],
    scores: list[tuple[str, str]],
    explanation: Explanation | None,
    sides: list[tuple[str, TopCodes | None]],
) -> str:
    """An image in detail; see `markup.pair`."""
    codes = [(title, top) for title, top in sides if top is not None]
    numbers = {number for _, top in codes for number in top.codes.tolist()}
    shown = {number: [answers.images.pixels(row) for row in answers.code_images(number)] for number in numbers}
    if explanation is not None and explanation.match is not None:
        scores = [*scores, ("match probability", f"{100 * explanation.match:.1f} %")]
    return markup.pair(
        pixels,
        name=name,
        captions=captions,
        scores=scores,
        explanation=explanation,
        codes=codes,
        code_images=shown,
        notes=[] if explanation is None else list(explanation.notes),
    )
