"""The page: a tab for each thing that the model can do."""

from __future__ import annotations

import pathlib

import gradio as gr

from cbalign.errors import UserError
from cbalign.report.demo import markup
from cbalign.report.demo.answers import MAX_TEXT, Answers, uploaded_pixels
from cbalign.report.demo.parts import ONE_AT_A_TIME, image_choice, pair_html, told
from cbalign.report.demo.search_tab import search_tab

# The model answers one at a time; this many more may wait, and further ones are told that it is busy.
_WAITING = 64


def build_page(answers: Answers, *, title: str, facts: list[str], folder: pathlib.Path) -> gr.Blocks:
    """The page, ready to be served.

    Args:
      answers: of the model.
      title, facts: what stands at its head.
      folder: for what the page makes; files in it alone are served.
    """
    # What visitors upload is deleted after an hour.
    with gr.Blocks(title=f"{title} · cbalign", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.HTML(markup.heading(title, facts))
        with gr.Tabs():
            if answers.searches:
                with gr.Tab("Search"):
                    search_tab(answers, folder)
            if answers.task.trains_matching:
                with gr.Tab("Match"):
                    _match_tab(answers, folder)
            if answers.task.prediction_input:
                with gr.Tab("Ask"):
                    _ask_tab(answers, folder)
            if answers.searches:
                with gr.Tab("Classes"):
                    _classes_tab(answers, folder)
    page.queue(max_size=_WAITING, default_concurrency_limit=1, api_open=False)
    return page


def theme() -> gr.themes.Base:
    """Colours, and fonts of the visitor's own machine."""
    return gr.themes.Default(
        primary_hue="blue",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )


def _match_tab(answers: Answers, folder: pathlib.Path) -> None:
    def match(file, words):
        if file is None:
            raise UserError("choose an image, or drop one")
        pixels = uploaded_pixels(file)
        seen = answers.explain(pixels, words)
        shown = pair_html(
            answers,
            pixels,
            name="The image you chose",
            captions=[],
            scores=[("cosine", f"{seen.cosine:.3f}")],
            explanation=seen,
            sides=[("Of the image", seen.image_codes), ("Of the text", seen.text_codes)],
        )
        return {said: "", verdict: {"match": seen.match, "no match": 1 - seen.match}, details: shown}

    with gr.Row():
        with gr.Column(min_width=280):
            (image,) = image_choice(answers, folder, "match")
        with gr.Column(min_width=280):
            text = gr.Textbox(
                label="Does this text describe the image?",
                max_length=MAX_TEXT,
                max_lines=1,
                submit_btn="Match",
                elem_id="match-text",
            )
            said = gr.HTML(elem_id="match-status")
            verdict = gr.Label(label="By the matching head", elem_id="match-verdict")
    details = gr.HTML(elem_id="match-details")
    answer = told(match, where=said, clear=(verdict, details))
    text.submit(answer, [image, text], [said, verdict, details], **ONE_AT_A_TIME)


def _ask_tab(answers: Answers, folder: pathlib.Path) -> None:
    def ask(words, *files):
        found, notes = answers.predict(list(files), words)
        return {said: markup.note(*notes), answer: dict(found)}

    with gr.Row():
        with gr.Column(min_width=280):
            images = image_choice(answers, folder, "ask")
        with gr.Column(min_width=280):
            kind = answers.task.prediction_input
            text = gr.Textbox(
                label=kind[:1].upper() + kind[1:],
                max_length=MAX_TEXT,
                max_lines=1,
                submit_btn="Ask",
                elem_id="ask-text",
            )
            said = gr.HTML(elem_id="ask-status")
            answer = gr.Label(label="Answer", num_top_classes=5, elem_id="ask-answer")
    text.submit(told(ask, where=said, clear=(answer,)), [text, *images], [said, answer], **ONE_AT_A_TIME)


def _classes_tab(answers: Answers, folder: pathlib.Path) -> None:
    def classify(file, names, template):
        found, notes = answers.classify(file, names, template)
        return {said: markup.note(*notes), answer: dict(found)}

    with gr.Row():
        with gr.Column(min_width=280):
            (image,) = image_choice(answers, folder, "classes")
        with gr.Column(min_width=280):
            names = gr.Textbox(
                label="Classes, one a line",
                lines=5,
                max_lines=12,
                max_length=MAX_TEXT,
                placeholder="cat\ndog\ntruck",
                elem_id="classes-names",
            )
            template = gr.Textbox(
                label="Text of a class, {} standing for its name",
                value="{}",
                max_length=200,
                max_lines=1,
                elem_id="classes-template",
            )
            button = gr.Button("Classify", variant="primary", elem_id="classes-button")
            said = gr.HTML(elem_id="classes-status")
            answer = gr.Label(label="Class", num_top_classes=10, elem_id="classes-answer")
    classified = told(classify, where=said, clear=(answer,))
    button.click(classified, [image, names, template], [said, answer], **ONE_AT_A_TIME)
