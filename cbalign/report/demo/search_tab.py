"""The tab that searches the folder, by words or by an image."""

from __future__ import annotations

import functools
import pathlib

import gradio as gr
import numpy as np

from cbalign.errors import UserError
from cbalign.report.demo import markup
from cbalign.report.demo.answers import MAX_TEXT, Answers, Found, Query
from cbalign.report.demo.images import ShownImages
from cbalign.report.demo.parts import GRID, ONE_AT_A_TIME, pair_of_row, thumbnails, told, upload

SHOWN = 24
"""Images in the grid at first."""
_MOST = 96
_EXAMPLES = 5
_SHORT = 45
_HINT = "Click an image to see where the model looks and which codes it chooses."
_TO_DETAILS = "() => { document.getElementById('details')?.scrollIntoView({behavior: 'smooth', block: 'nearest'}); }"


def search_tab(answers: Answers, folder: pathlib.Path) -> None:
    """Builds the tab; `folder` as for `build_page`."""
    images, first = answers.images, answers.find(Query(), least=-1, count=SHOWN)

    def show(query: Query, least: float, count: float):
        found = answers.find(query, least=float(least), count=int(np.clip(count, 1, _MOST)))
        shown, notes = thumbnails(images, found.rows, folder)
        said = _summary(answers, query, found, least)
        return {
            asked: query,
            listed: found,
            results: gr.Gallery(value=list(zip(shown, _labels(images, found))), selected_index=None),
            status: markup.note(said, *query.notes, *notes),
            details: markup.note(_HINT),
        }

    def by_text(words, least, count):
        return {**show(answers.text_query(words), least, count), image: None}

    def by_image(file, least, count):
        query = Query() if file is None else answers.image_query(file)
        return {**show(query, least, count), text: ""}

    def look(query: Query, found: Found, event: gr.SelectData):
        place = event.index
        if not isinstance(place, int) or not 0 <= place < len(found.rows):
            raise UserError("this image is no longer among the results")
        return {details: pair_of_row(answers, found.rows[place], query.text, query.feature)}

    asked, listed = gr.State(Query()), gr.State(first)
    with gr.Row(equal_height=True):
        with gr.Column(scale=3, min_width=280):
            text = gr.Textbox(
                label="Search in words",
                placeholder="what to look for",
                max_length=MAX_TEXT,
                max_lines=1,
                submit_btn="Search",
                elem_id="query",
            )
            examples = _examples(images)
            with gr.Row():
                least = gr.Slider(
                    -1, 1, value=-1, step=0.01, label="Least score (cosine)", min_width=130, elem_id="least"
                )
                count = gr.Slider(1, _MOST, value=SHOWN, step=1, label="Images at most", min_width=130, elem_id="count")
        with gr.Column(scale=1, min_width=220):
            image = upload("or by an image", "query-image", height=210)
    status = gr.HTML(markup.note(_summary(answers, Query(), first, -1)), elem_id="status")
    shown = list(zip(thumbnails(images, first.rows, folder)[0], _labels(images, first)))
    with gr.Row():
        with gr.Column(scale=4, min_width=280):
            results = gr.Gallery(value=shown, columns=4, elem_id="results", elem_classes="cb-results", **GRID)
        with gr.Column(scale=3, min_width=280):
            details = gr.HTML(markup.note(_HINT), elem_id="details")

    outputs = [asked, listed, results, status, details, text, image]
    ask = functools.partial(told, where=status)
    text.submit(ask(by_text), [text, least, count], outputs, **ONE_AT_A_TIME)
    image.input(ask(by_image), [image, least, count], outputs, **ONE_AT_A_TIME)
    for slider in (least, count):
        slider.release(ask(show), [asked, least, count], outputs, trigger_mode="always_last", **ONE_AT_A_TIME)
    if examples is not None:
        chosen = examples.click(lambda sample: sample[0], examples, text, api_visibility="private")
        chosen.then(ask(by_text), [text, least, count], outputs, **ONE_AT_A_TIME)
    looked = results.select(
        told(look, where=details), [asked, listed], [details], trigger_mode="always_last", **ONE_AT_A_TIME
    )
    looked.then(None, js=_TO_DETAILS)


def _summary(answers: Answers, query: Query, found: Found, least: float) -> str:
    total = len(answers.images)
    if found.scores is None:
        return f"{len(found.rows):,} of {total:,} images; search in words, or drop an image"
    if not found.rows:
        best = answers.find(query, least=-2, count=1)
        return f"no image scores {least:.2f} or more; the best one scores {best.scores[0]:.2f}"
    text = f"{len(found.rows):,} of {total:,} images, best first"
    return text if found.enough == total else f"{text}; {found.enough:,} score {least:.2f} or more"


def _labels(images: ShownImages, found: Found) -> list[str]:
    """The score and what the folder says of each image."""
    words = [(images.captions.get(images.names[row]) or [images.shown_name(row)])[0] for row in found.rows]
    return words if found.scores is None else [f"{score:.2f} · {word}" for score, word in zip(found.scores, words)]


def _examples(images: ShownImages) -> gr.Dataset | None:
    """Some captions of the folder to click on, where it has any."""
    captions = [images.captions[name][0] for name in images.names if images.captions.get(name)]
    if not captions:
        return None
    captions = [caption for caption in captions if len(caption) <= _SHORT] or captions
    # Spread over the folder, since neighbours by name are often alike.
    rows = np.unique(np.linspace(0, len(captions) - 1, min(_EXAMPLES, len(captions))).astype(int))
    samples = [[captions[row]] for row in rows]
    return gr.Dataset(components=[gr.Textbox(visible=False)], samples=samples, label="Try", elem_id="examples")
