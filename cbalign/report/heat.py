"""Attention laid over an image, and the picture of an explanation."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
from PIL import Image

from cbalign.inference.codebook import TopCodes
from cbalign.inference.explanation import Explanation
from cbalign.report import plots

# A map of one hue range from light to dark, which reads without colour; light and transparent where nothing is.
_COLOURS = "YlOrRd"
_OPACITY = 0.85
# The picture of an explanation, in inches.
_TILE, _PER_ROW, _MARGIN, _HEAD, _CODE_ROW = 1.5, 6, 0.2, 0.75, 0.8
_GREY, _BAR = "#5f6b76", "#0072b2"


def heat(image: np.ndarray, attention: np.ndarray, scale: float, *, side: int = 0) -> Image.Image:
    """An image with attention laid over it.

    Args:
      image: uint8 [S, S, 3].
      attention: float [g, g], 0 or more.
      scale: what counts as full attention, such as the maximum over all words; 0 leaves the image as it is.
      side: of the result in pixels; by default that of the image.
    """
    side = side or len(image)
    # As smooth as ALBEF's own figures; the cubic filter can overshoot.
    weights = Image.fromarray((attention / scale if scale else attention * 0).astype(np.float32))
    weights = np.clip(np.asarray(weights.resize((side, side), Image.Resampling.BICUBIC)), 0, 1)[..., np.newaxis]
    base = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC), np.float32)
    colour = 255 * matplotlib.colormaps[_COLOURS](0.25 + 0.75 * weights[..., 0])[..., :3]
    opacity = _OPACITY * np.sqrt(weights)
    return Image.fromarray(np.round(base * (1 - opacity) + colour * opacity).astype(np.uint8))


def scores_line(explanation: Explanation) -> str:
    """Both scores of a pair and what they mean, in one line."""
    match = "" if explanation.match is None else f"   ·   match probability {100 * explanation.match:.1f} %"
    return f"cosine {explanation.cosine:.3f} (-1 to 1; ranks first){match}"


def explanation_png(
    explanation: Explanation,
    *,
    image_neighbours: Sequence[Sequence[Image.Image]] = (),
    text_neighbours: Sequence[Sequence[Image.Image]] = (),
) -> bytes:
    """The picture of an explanation: the image, a map a word, both scores, the top codes of both sides.

    Args:
      explanation: of one pair.
      image_neighbours, text_neighbours: for each top code of the image, and of the text, its nearest images; empty for
        none.
    """
    tiles: list[tuple[str, Image.Image]] = [("image", Image.fromarray(explanation.image))]
    if explanation.word_maps is not None:
        scale = float(explanation.word_maps.max(initial=0.0))
        tiles += [
            (word, heat(explanation.image, attention, scale, side=224))
            for word, attention in zip(explanation.words, explanation.word_maps)
        ]
    sides = [
        ("codes of the image", explanation.image_codes, image_neighbours),
        ("codes of the text", explanation.text_codes, text_neighbours),
    ]
    rows, coded = -(-len(tiles) // _PER_ROW), explanation.image_codes is not None
    longest = max((len(codes.codes) for _, codes, _ in sides if codes), default=0)
    how = []
    if explanation.maps_by:
        how = [f"Maps: attention weighted by how much it raises {explanation.maps_by}; darker red is more, one scale."]
    notes = textwrap.wrap(" ".join([*how, *(f"Note: {note}." for note in explanation.notes)]), 130)
    width = 2 * _MARGIN + _PER_ROW * (_TILE + 0.12)
    height = _HEAD + rows * (_TILE + 0.35) + (0.45 + longest * _CODE_ROW if coded else 0) + 0.2 * len(notes) + 0.15
    figure = plots.new_figure(width, height)

    def write(left: float, top: float, text: str, **style) -> None:
        figure.text(left / width, 1 - top / height, text, va="top", parse_math=False, **style)

    def show(image: Image.Image, left: float, top: float, side: float) -> None:
        axis = figure.add_axes((left / width, 1 - (top + side) / height, side / width, side / height))
        axis.imshow(image, interpolation="bicubic")
        axis.set(xticks=[], yticks=[])
        for spine in axis.spines.values():
            spine.set(color="#c9ced3", linewidth=0.8)

    write(_MARGIN, 0.12, textwrap.shorten(explanation.text, 90, placeholder=" …"), size=13, weight="bold")
    write(_MARGIN, 0.43, scores_line(explanation), size=9.5, color=_GREY)
    for number, (label, image) in enumerate(tiles):
        left, top = _MARGIN + number % _PER_ROW * (_TILE + 0.12), _HEAD + number // _PER_ROW * (_TILE + 0.35)
        write(left, top, textwrap.shorten(label, 20, placeholder="…") or label[:20], size=10)
        show(image, left, top + 0.22, _TILE)
    top = _HEAD + rows * (_TILE + 0.35) + 0.05
    if coded:
        for number, (label, codes, neighbours) in enumerate(sides):
            left = _MARGIN + number * (width - 2 * _MARGIN) / 2
            write(left, top, label, size=10, weight="bold")
            _write_codes(write, show, codes, neighbours, left, top + 0.3)
    for number, line in enumerate(notes):
        write(_MARGIN, height - 0.1 - 0.2 * (len(notes) - number), line, size=8.5, color=_GREY)
    return plots.to_png(figure)


def _write_codes(write, show, codes: TopCodes, neighbours, left: float, top: float) -> None:
    for row, (code, probability) in enumerate(zip(codes.codes.tolist(), codes.probabilities.tolist())):
        place = top + row * _CODE_ROW
        write(left, place + 0.1, f"code {code}", size=9.5)
        write(left, place + 0.32, f"{100 * probability:.1f} %", size=9.5, color=_BAR)
        for column, image in enumerate(neighbours[row] if row < len(neighbours) else ()):
            show(image, left + 0.85 + column * (_CODE_ROW - 0.02), place, _CODE_ROW - 0.08)
