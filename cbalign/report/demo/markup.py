"""HTML of the page: every text in it is escaped, whatever it contains."""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image

from cbalign.inference import Explanation, TopCodes
from cbalign.inference.explanation import BY_MATCH
from cbalign.report.inline import data_uri, environment, reduced

_TEMPLATES = "parts.html.jinja"
# The framework fills templates of its own in the browser, by ${...} and {{...}}.
_TEMPLATE_SIGNS = str.maketrans({"$": "&#36;", "{": "&#123;", "}": "&#125;", "`": "&#96;"})
# What is left of an image's brightness where a word pays no attention.
_DIMMED = 0.2


def note(*sentences: str) -> str:
    """A paragraph of small print; nothing for no sentence."""
    return _part("note", sentences=[sentence for sentence in sentences if sentence])


def heading(title: str, facts: list[str]) -> str:
    """The head of the page."""
    return _part("heading", title=title, facts=facts)


def pair(
    pixels: np.ndarray,
    *,
    name: str,
    captions: list[str],
    scores: list[tuple[str, str]],
    explanation: Explanation | None,
    codes: list[tuple[str, TopCodes]],
    code_images: dict[int, list[np.ndarray]],
    notes: list[str],
) -> str:
    """What is to be said of an image and a query.

    Args:
      pixels: the image, uint8 [h, w, 3].
      name, captions: of the image.
      scores: (what, value) in words.
      explanation: of the pair; None where there is no text.
      codes: (whose, its likeliest codes), by side.
      code_images: {code: the images nearest to it}.
      notes: sentences.
    """
    shared = set.intersection(*(set(top.codes.tolist()) for _, top in codes)) if len(codes) > 1 else set()
    sides = [
        {
            "title": title,
            "codes": [
                {
                    "number": code,
                    "share": float(share),
                    "both": code in shared,
                    "images": [_uri(image, 64) for image in code_images[code]],
                }
                for code, share in zip(top.codes.tolist(), top.probabilities)
            ],
        }
        for title, top in codes
    ]
    maps, maps_note = [], ""
    if explanation is not None and explanation.token_maps is not None:
        shown, (whole, by_word) = np.asarray(reduced(pixels, 224)), attention_maps(explanation)
        maps = [{"word": word, "image": _uri(spotlight(shown, light), 224)} for word, light in (*whole, *by_word)]
        if not maps:
            notes = [*notes, "no attention raises the matching score of this pair, so there are no maps"]
        elif not by_word:
            notes = [*notes, "no attention to the image raises the score of a single word"]
            maps_note = f"Lit: where cross-attention raises {BY_MATCH}."
        else:
            own = explanation.maps_by != BY_MATCH
            raised = f"{BY_MATCH} (whole text) or {explanation.maps_by} (words)" if own else BY_MATCH
            maps_note = (
                f"Lit: where cross-attention raises {raised}. The whole text has a scale of its own; the words "
                "share one, so that a dark word counts little beside the others."
            )
    return _part(
        "pair",
        image=_uri(pixels, 448),
        name=name,
        captions=captions,
        scores=scores,
        maps=maps,
        maps_note=maps_note,
        sides=sides,
        notes=notes,
    )


def attention_maps(explanation: Explanation) -> tuple[list[tuple[str, np.ndarray]], list[tuple[str, np.ndarray]]]:
    """(the map of the whole text, those of its words): (name, float32 [g, g] in [0, 1]).

    Either is empty where it is zero or was never learned. Words have a scale of their own, since in a model's last
    fusion layer another score weights their attention than that of the whole text; see `Explanation.maps_by`.
    """
    words = [] if explanation.word_maps is None else list(zip(explanation.words, explanation.word_maps))
    return _scaled([("whole text", explanation.token_maps[0])]), _scaled(words)


def _scaled(maps: list[tuple[str, np.ndarray]]) -> list[tuple[str, np.ndarray]]:
    largest = max((float(attention.max(initial=0)) for _, attention in maps), default=0.0)
    return [(name, attention / largest) for name, attention in maps] if largest else []


def spotlight(pixels: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """An image lit where attention lies.

    Args:
      pixels: uint8 [h, w, 3].
      attention: float32 [g, g] in [0, 1], over the whole image; 1 is full brightness.

    Returns:
      uint8 [h, w, 3].
    """
    height, width = pixels.shape[:2]
    grid = Image.fromarray(np.asarray(attention, np.float32))
    light = np.clip(np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)), 0, 1)[..., np.newaxis]
    return np.round(pixels * (_DIMMED + (1 - _DIMMED) * light)).astype(np.uint8)


def _uri(pixels: np.ndarray, side: int) -> str:
    return data_uri(reduced(pixels, side))


def _part(macro: str, **values) -> str:
    return getattr(_module(), macro)(**values).translate(_TEMPLATE_SIGNS)


@functools.cache
def _module():
    return environment("cbalign.report", "demo").get_template(_TEMPLATES).module
