"""One picture of what searches found: a row of images for each query, best first."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont, ImageOps

from cbalign.data.image_files import BadImage, load_rgb

_SIDE, _MARGIN, _TITLE, _CAPTION = 112, 10, 22, 16


def hit_sheet(found: Sequence[tuple[str, Sequence[tuple[float, str]]]]) -> Image.Image:
    """Draws the hits of several queries.

    Args:
      found: (query, its hits: (score, path of an image)), a row each; at least one hit in all.

    Returns:
      An RGB image; a file that can no longer be read is a red square.
    """
    columns = max(len(hits) for _, hits in found)
    height = _TITLE + _SIDE + _CAPTION + _MARGIN
    sheet = Image.new("RGB", (columns * (_SIDE + _MARGIN) + _MARGIN, len(found) * height + _MARGIN), "white")
    draw, title, small = ImageDraw.Draw(sheet), ImageFont.load_default(15), ImageFont.load_default(10)
    for row, (query, hits) in enumerate(found):
        top = _MARGIN + row * height
        draw.text((_MARGIN, top), query, fill="black", font=title)
        for column, (score, path) in enumerate(hits):
            left = _MARGIN + column * (_SIDE + _MARGIN)
            image = _opened(path)
            sheet.paste(image, (left + (_SIDE - image.width) // 2, top + _TITLE + (_SIDE - image.height) // 2))
            draw.text((left, top + _TITLE + _SIDE + 1), f"{score:.2f}  {_name(path)}", fill="#555555", font=small)
    return sheet


def _opened(path: str) -> Image.Image:
    try:
        return ImageOps.contain(Image.fromarray(load_rgb(pathlib.Path(path).read_bytes())), (_SIDE, _SIDE))
    except (BadImage, OSError):
        return Image.new("RGB", (_SIDE, _SIDE), "red")


def _name(path: str) -> str:
    """The start of the file's name, as far as it fits; what the font lacks or is no text becomes a question mark."""
    return pathlib.Path(path).stem[:13].encode("ascii", errors="replace").decode()
