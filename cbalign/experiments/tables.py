"""Tables of a suite as Markdown, CSV and HTML: our figures beside the literature's, and where each comes from."""

import csv
import dataclasses
import importlib.resources
import io
import os
from collections.abc import Iterable

import jinja2
from etils import epath

from cbalign.experiments import published
from cbalign.experiments.gather import GatheredLine, GatheredRow, GatheredTable
from cbalign.experiments.statistics import Estimate
from cbalign.storage import write_atomically

_RECALLED = (
    "Figures of the literature marked ? are recalled from the paper and were not read in it: check them before "
    "quoting them."
)
_INTERVAL = (
    "±: 95 % t interval over seeds. Differences are paired by seed; * marks those whose interval excludes 0. With "
    "this many comparisons, about one in twenty gets a star by chance."
)
_NEAR = "≈: a difference of less than twice the published spread."
_FAILED = "Failed: the loss was not finite, or the recall on validation stayed below twice chance."


@dataclasses.dataclass(frozen=True)
class _Grid:
    """Cells as text; `facts` are read as text, the others as figures."""

    title: str
    header: tuple[str, ...]
    rows: list
    notes: tuple[str, ...] = ()
    facts: bool = False


def write_tables(name: str, tables: list[GatheredTable], folder: os.PathLike | str) -> dict[str, epath.Path]:
    """Writes NAME.md, NAME.csv and NAME.html.

    Args:
      name: of the suite.
      tables: from `gather`.
      folder: created if needed.

    Returns:
      {"md", "csv", "html": the file}.
    """
    contents = {"md": markdown(name, tables), "csv": comma_separated(name, tables), "html": page(name, tables)}
    return {
        kind: write_atomically(epath.Path(folder) / f"{name}.{kind}", content) for kind, content in contents.items()
    }


def markdown(name: str, tables: list[GatheredTable]) -> str:
    """All tables as one Markdown document."""
    parts = [f"# {name}"]
    for grid in _grids(tables):
        parts.append(f"## {grid.title}")
        rows = [[cell.replace("|", "\\|") for cell in row] for row in (grid.header, *grid.rows)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(grid.header))]
        left = [i == 0 or grid.facts for i in range(len(widths))]
        cells = [
            [cell.ljust(width) if first else cell.rjust(width) for cell, width, first in zip(row, widths, left)]
            for row in rows
        ]
        lines = [f"| {' | '.join(row)} |" for row in cells]
        rule = "|".join(
            ":" + "-" * (width + 1) if first else "-" * (width + 1) + ":" for width, first in zip(widths, left)
        )
        parts.append("\n".join([lines[0], f"|{rule}|", *lines[1:]]))
        parts += grid.notes
    return "\n\n".join(parts) + "\n"


def page(name: str, tables: list[GatheredTable]) -> str:
    """All tables as one self-contained HTML page."""
    template = importlib.resources.files("cbalign.experiments") / "tables.html.jinja"
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    return environment.from_string(template.read_text(encoding="utf-8")).render(name=name, grids=_grids(tables))


_FIELDS = (
    "suite",
    "table",
    "line",
    "column",
    "ours",
    "half_width",
    "seeds",
    "literature",
    "confidence",
    "source",
    "literature_spread",
    "difference_to_literature",
    "against",
    "paired_difference",
    "paired_half_width",
    "state",
    "failed",
    "rate",
    "commit",
    "config",
    "workdir",
    "log",
    "command",
    "chip_hours",
)


def comma_separated(name: str, tables: list[GatheredTable]) -> str:
    """All figures as CSV, one a line, with everything known about each."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _FIELDS, lineterminator="\n")
    writer.writeheader()
    for gathered in tables:
        deviations = published.spread(gathered.table.literature).deviations
        for line in gathered.lines:
            common = {
                "suite": name,
                "table": gathered.table.name,
                "line": line.line.label,
                "state": line.state,
                "against": line.against,
                "chip_hours": line.chip_hours,
                **_origin(line),
            }
            for column in gathered.table.columns:
                spread = {"literature_spread": deviations.get(column.name)}
                writer.writerow({**common, **spread, "column": column.name, **_values(line, column.name)})
    return text.getvalue()


def _values(line: GatheredLine, column: str) -> dict:
    ours, theirs, paired = line.figures.get(column), line.literature.get(column), line.differences.get(column)
    found = {}
    if ours:
        found |= {"ours": ours.mean, "half_width": ours.half_width, "seeds": ours.count}
    if theirs:
        found |= {"literature": theirs.value, "confidence": theirs.confidence, "source": theirs.source}
    if ours and theirs:
        found["difference_to_literature"] = ours.mean - theirs.value
    if paired:
        found |= {"paired_difference": paired.mean, "paired_half_width": paired.half_width}
    return found


def _origin(line: GatheredLine) -> dict:
    """Where the figures come from; several runs are named one after the other."""
    folders = [folder for row in line.rows for folder in row.folders.values() if folder.config]
    return {
        "failed": sum(row.failed for row in line.rows),
        "rate": _several(row.rate for row in line.rows),
        "commit": _several(folder.commit for folder in folders),
        "config": _several(row.row.config for row in line.rows),
        "workdir": _several(folder.workdir for folder in folders),
        "log": _several(folder.workdir / "train.log" for folder in folders),
        "command": " && ".join(line.commands) or _several(folder.command for folder in folders[:1]),
    }


def _several(values: Iterable) -> str:
    """The different ones, separated by spaces."""
    return " ".join(dict.fromkeys(str(value) for value in values if value))


def _grids(tables: list[GatheredTable]) -> list[_Grid]:
    """What Markdown and HTML show, in order."""
    rows = {row.row.name: row for gathered in tables for line in gathered.lines for row in line.rows}
    grids = (*map(_figures, tables), _runs(rows.values()), _outstanding(tables, rows))
    return [grid for grid in grids if grid.rows]


def _figures(gathered: GatheredTable) -> _Grid:
    table, rows = gathered.table, []
    spread = published.spread(table.literature)
    for line in gathered.lines:
        rows += _line_rows(table, line, spread.deviations)
    shown = any(line.literature for line in gathered.lines) and bool(spread.deviations)
    if shown:
        cells = [f"± {spread.deviations[c.name]:.1f}" if c.name in spread.deviations else "" for c in table.columns]
        rows.append(("published spread", *cells, ""))
    notes = _notes(gathered, spread if shown else None, near=any("≈" in cell for row in rows for cell in row))
    return _Grid(table.title, ("", *(column.label for column in table.columns), "state"), rows, notes)


def _line_rows(table, line: GatheredLine, deviations: dict[str, float]) -> list[tuple[str, ...]]:
    """Ours, the literature's, and the differences of one line."""
    rows, label = [], line.line.label
    if line.rows:
        ours = (_ours(line.figures.get(column.name), column.digits) for column in table.columns)
        rows.append((f"{label}, ours" if line.literature else label, *ours, line.state))
    if line.literature:
        theirs = (_theirs(line.literature.get(column.name), column.digits) for column in table.columns)
        rows.append((f"{label}, literature" if line.rows else label, *theirs, ""))
    gaps = [
        _gap(
            line.figures.get(column.name), line.literature.get(column.name), column.digits, deviations.get(column.name)
        )
        for column in table.columns
    ]
    paired = [_paired(line.differences.get(column.name), column.digits) for column in table.columns]
    if any(gaps):
        rows.append(("– difference", *gaps, ""))
    if any(paired):
        rows.append((f"– less {line.against}", *paired, ""))
    return rows


def _notes(gathered: GatheredTable, spread: published.Spread | None, *, near: bool) -> tuple[str, ...]:
    rows = {line.line.method: list(line.literature.values()) for line in gathered.lines}
    figures = [figure for row in rows.values() for figure in row]
    notes = [gathered.table.note] if gathered.table.note else []
    if any(figure.half_width is not None for line in gathered.lines for figure in line.figures.values()):
        notes.append(_INTERVAL)
    if spread:
        notes.append(f"Published spread: {spread.about} Source: {spread.source}.")
    if near:
        notes.append(_NEAR)
    if any(figure.confidence == "recalled" for figure in figures):
        notes.append(_RECALLED)
    for confidence in published.CONFIDENCES:
        sources = dict.fromkeys(figure.source for figure in figures if figure.confidence == confidence)
        if sources:
            notes.append(f"Literature, {confidence}: {'; '.join(sources)}.")
    notes += [f"{method}: {row[0].note}." for method, row in rows.items() if row and row[0].note]
    return tuple(notes)


def _runs(gathered: Iterable[GatheredRow]) -> _Grid:
    rows = []
    for row in gathered:
        folders = [folder for folder in row.folders.values() if folder.config]
        if not folders:
            continue
        rows.append(
            (
                row.row.label,
                row.state,
                str(len(folders)),
                str(row.failed),
                str(row.rate or ""),
                _several(folder.commit for folder in folders),
                row.row.config,
                _several(folder.workdir / "train.log" for folder in folders),
                folders[0].command,
            )
        )
    header = ("", "state", "runs", "failed", "rate", "commit", "config", "log", "command of the first")
    return _Grid("Runs", header, rows, (_FAILED,), facts=True)


def _outstanding(tables: list[GatheredTable], shown: dict[str, GatheredRow]) -> _Grid:
    """Commands in the order in which they are to be run, including those of rows that others start from."""
    hours: dict[str, str] = {}
    for line in (line for gathered in tables for line in gathered.lines):
        hours |= {text: hours.get(text, "not known") for text in line.commands}
    for row in shown.values():
        for i, text in enumerate(row.commands):
            first = "not known" if row.chip_hours is None else f"{row.chip_hours:,.0f}" if row.chip_hours else ""
            hours[text] = "" if i else first
    return _Grid("Still to run", ("command", "chip-hours"), list(hours.items()), facts=True)


def _ours(figure: Estimate | None, digits: int) -> str:
    if figure is None:
        return "–"
    return f"{figure.mean:.{digits}f}" + ("" if figure.half_width is None else f" ± {figure.half_width:.{digits}f}")


def _theirs(figure: published.Figure | None, digits: int) -> str:
    if figure is None:
        return "–"
    decimals = len(f"{figure.value}".partition(".")[2])  # as many as were published
    return f"{figure.value:.{max(digits, decimals)}f}{figure.mark}"


def _gap(ours: Estimate | None, theirs: published.Figure | None, digits: int, deviation: float | None) -> str:
    if ours is None or theirs is None:
        return ""
    gap = ours.mean - theirs.value
    near = deviation is not None and abs(gap) < 2 * deviation
    return f"{'≈ ' if near else ''}{gap:+.{digits}f}"


def _paired(difference: Estimate | None, digits: int) -> str:
    if difference is None:
        return ""
    spread = "" if difference.half_width is None else f" ± {difference.half_width:.{digits}f}"
    return f"{difference.mean:+.{digits}f}{spread}{' *' if difference.clear_of_zero else ''}"
