"""What every page needs: images inside it, and templates in which all text is escaped."""

from __future__ import annotations

import base64
import io

import jinja2
import numpy as np
from PIL import Image


def environment(package: str, folder: str) -> jinja2.Environment:
    """The environment of a folder of templates."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def reduced(pixels: np.ndarray, side: int) -> Image.Image:
    """Pixels uint8 [h, w, 3] as an image, its long side reduced to `side` where it is longer."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.BICUBIC)
    return image


def to_webp(image: Image.Image) -> bytes:
    """A small image for a page, a few kilobytes."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80, method=4)
    return buffer.getvalue()


def data_uri(image: Image.Image) -> str:
    """An image inside the page."""
    return f"data:image/webp;base64,{base64.b64encode(to_webp(image)).decode()}"
