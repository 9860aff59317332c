"""Pages from the templates in this folder, and plots as SVG for them."""

from __future__ import annotations

import markupsafe

from cbalign.report import plots
from cbalign.report.inline import data_uri, environment


def render(template: str, **context) -> str:
    """A page of a template in this folder; all text is escaped."""
    templates = environment("cbalign", "report")
    templates.globals["uri"] = data_uri
    return templates.get_template(template).render(**context)


def drawn(panels: list[plots.Panel], metrics) -> list[tuple[plots.Panel, markupsafe.Markup]]:
    """The panels that have data with their plots, for the page."""
    shown = [panel for panel in panels if plots.has_data(panel, metrics)]
    # matplotlib escapes the labels.
    return [(panel, markupsafe.Markup(plots.panel_svg(panel, metrics))) for panel in shown]
