"""Figures that an evaluation server returned, entered by hand and kept beside the runs of a suite."""

import math
import os
from collections.abc import Iterable

from etils import epath

from cbalign.errors import UserError
from cbalign.experiments.suite import ServerFigure, Suite
from cbalign.storage import read_json, write_json

FILE = "server_figures.json"


def read_figures(runs: os.PathLike | str) -> dict[str, float]:
    """{"ROW.SPLIT": figure in %} entered so far; empty where there are none.

    Raises:
      UserError: the file is damaged.
    """
    file = epath.Path(runs) / FILE
    if not file.exists():
        return {}
    stored = read_json(file)
    if stored is None or not all(isinstance(value, int | float) for value in stored.values()):
        raise UserError(f"{file} is damaged; remove it and enter the figures again with cbalign tables --result")
    return stored


def enter_figures(suite: Suite, runs: os.PathLike | str, entries: Iterable[str]) -> dict[str, float]:
    """Adds figures to those entered so far.

    Args:
      suite: whose tables show them.
      runs: folder of its runs.
      entries: "ROW.SPLIT=FIGURE" each, as in "vqa.test-dev=73.2", in %; an empty figure removes one.

    Returns:
      All figures, {"ROW.SPLIT": figure}.

    Raises:
      UserError: a row or split no server reports in this suite, or no number between 0 and 100.
    """
    figures, entries = read_figures(runs), tuple(entries)
    known = sorted(
        {
            column.source.key(row)
            for table in suite.tables
            for column in table.columns
            if isinstance(column.source, ServerFigure)
            for row in suite.rows
            if row.config == column.source.config
        }
    )
    for entry in entries:
        key, separator, text = entry.partition("=")
        if key not in known:
            there = f"it takes {', '.join(known)}" if known else f"the suite {suite.name} has no figures of a server"
            raise UserError(f"--result={entry}: no figure {key!r}; {there}")
        if separator and not text:
            figures.pop(key, None)
            continue
        try:
            figures[key] = float(text)
        except ValueError as error:
            raise UserError(f"--result={entry} has no number; write --result={key}=73.2") from error
        if not (math.isfinite(figures[key]) and 0 <= figures[key] <= 100):
            raise UserError(f"--result={entry}: the figure must be between 0 and 100, in %")
    if entries:
        write_json(epath.Path(runs) / FILE, figures)
    return figures
