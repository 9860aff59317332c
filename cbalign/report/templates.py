"""The templates of the report's pages and what they call: data URIs, plots as SVG."""

from __future__ import annotations

import base64

import jinja2
import markupsafe
from PIL import Image

from cbalign.report import plots
from cbalign.report.encoded_split import to_webp


def render(template: str, **context) -> str:
    """A page of a template in this folder; all text is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cbalign", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["uri"] = data_uri
    return environment.get_template(template).render(**context)


def data_uri(image: Image.Image) -> str:
    """An image inside the page."""
    return f"data:image/webp;base64,{base64.b64encode(to_webp(image)).decode()}"


def drawn(panels: list[plots.Panel], metrics) -> list[tuple[plots.Panel, markupsafe.Markup]]:
    """The panels that have data with their plots, for the page."""
    shown = [panel for panel in panels if plots.has_data(panel, metrics)]
    # matplotlib escapes the labels.
    return [(panel, markupsafe.Markup(plots.panel_svg(panel, metrics))) for panel in shown]
