"""Tables of a suite as Markdown, CSV and HTML: our figures beside the literature's, and where each comes from."""

import csv
import dataclasses
import html
import io

from etils import epath

from cbalign.experiments import published
from cbalign.experiments.gather import GatheredLine, GatheredTable
from cbalign.experiments.statistics import Estimate

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #22282e; background: #fff; margin: 0 auto; max-width: 90rem;
  padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; } h3 { font-size: 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } .wide { overflow-x: auto; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #e4e7ea; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 2px solid #8a939b; }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; } .note { color: #5f6b76; font-size: .9rem; }
"""

_RECALLED = ("Figures of the literature marked ? are recalled from the paper and were not read in it: check them before "
             "quoting them.")
_INTERVAL = ("±: 95 % t interval over seeds. Differences are paired by seed; * stands at those whose interval leaves out "
             "0. Many are shown, and of twenty that mean nothing one is expected to have a star.")


@dataclasses.dataclass(frozen=True)
class _Grid:
    """Cells as text; `facts` are read as text, the others as figures."""

    title: str
    header: tuple[str, ...]
    rows: list
    notes: tuple[str, ...] = ()
    facts: bool = False


def write_tables(name: str, tables: list[GatheredTable], folder) -> dict[str, epath.Path]:
    """Writes NAME.md, NAME.csv and NAME.html.

    Args:
      name: of the suite.
      tables: from `gather`.
      folder: made if need be.

    Returns:
      {"md", "csv", "html": the file}.
    """
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    contents = {"md": markdown(name, tables), "csv": comma_separated(name, tables), "html": page(name, tables)}
    files = {}
    for kind, content in contents.items():
        files[kind] = folder / f"{name}.{kind}"
        files[kind].write_text(content)
    return files


def markdown(name: str, tables: list[GatheredTable]) -> str:
    """All tables as one Markdown document."""
    parts = [f"# {name}"]
    for grid in _grids(tables):
        parts.append(f"## {grid.title}")
        rows = [grid.header, *grid.rows]
        widths = [max(len(row[i]) for row in rows) for i in range(len(grid.header))]
        lines = ["| " + " | ".join(_pad(cell, width, i == 0 or grid.facts) for i, (cell, width)
                                   in enumerate(zip(map(_bar, row), widths))) + " |" for row in rows]
        rule = "|".join((":" if i == 0 or grid.facts else "-") + "-" * width + ("-" if i == 0 or grid.facts else ":")
                        for i, width in enumerate(widths))
        parts.append("\n".join([lines[0], f"|{rule}|", *lines[1:]]))
        parts += grid.notes
    return "\n\n".join(parts) + "\n"


def _pad(cell: str, width: int, left: bool) -> str:
    return cell.ljust(width) if left else cell.rjust(width)


def _bar(cell: str) -> str:
    return cell.replace("|", "\\|")


def page(name: str, tables: list[GatheredTable]) -> str:
    """All tables as one HTML page that needs nothing beside it."""
    sections = []
    for grid in _grids(tables):
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in grid.header)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>\n" for row in grid.rows)
        notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in grid.notes)
        kind = ' class="facts"' if grid.facts else ""
        sections.append(f'<section><h2>{html.escape(grid.title)}</h2><div class="wide"><table{kind}><thead><tr>{head}'
                        f"</tr></thead><tbody>{body}</tbody></table></div>{notes}</section>\n")
    return ('<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
            f'content="width=device-width, initial-scale=1"><title>{html.escape(name)} · cbalign</title>'
            f"<style>{_STYLE}</style></head>\n<body><h1>{html.escape(name)}</h1>\n{''.join(sections)}</body></html>\n")


_FIELDS = ("suite", "table", "line", "column", "ours", "half_width", "seeds", "literature", "confidence", "source",
           "difference_to_literature", "against", "paired_difference", "paired_half_width", "state", "failed", "rate",
           "commit", "config", "workdir", "log", "command", "chip_hours")


def comma_separated(name: str, tables: list[GatheredTable]) -> str:
    """All figures as CSV, one a line, with everything known of each."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _FIELDS, lineterminator="\n")
    writer.writeheader()
    for gathered in tables:
        for line in gathered.lines:
            common = {"suite": name, "table": gathered.table.name, "line": line.line.label, "state": line.state,
                      "against": line.against, "chip_hours": line.chip_hours, **_origin(line)}
            for column in gathered.table.columns:
                writer.writerow({**common, "column": column.name, **_values(line, column.name)})
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
        "failed": sum(row.failed for row in line.rows), "rate": _several(row.rate for row in line.rows),
        "commit": _several(folder.commit for folder in folders), "config": _several(row.row.config for row in line.rows),
        "workdir": _several(folder.workdir for folder in folders),
        "log": _several(folder.workdir / "train.log" for folder in folders),
        "command": " && ".join(line.commands) or _several(folder.command for folder in folders[:1]),
    }


def _several(values) -> str:
    """The different ones, with a blank between."""
    return " ".join(dict.fromkeys(str(value) for value in values if value))


def _grids(tables: list[GatheredTable]) -> list[_Grid]:
    """What Markdown and HTML show, in its order."""
    rows = {row.row.name: row for gathered in tables for line in gathered.lines for row in line.rows}
    grids = (*map(_figures, tables), _runs(rows.values()), _outstanding(tables, rows))
    return [grid for grid in grids if grid.rows]


def _figures(gathered: GatheredTable) -> _Grid:
    table, rows = gathered.table, []
    for line in gathered.lines:
        ours = [_ours(line.figures.get(column.name), column.digits) for column in table.columns]
        theirs = [_theirs(line.literature.get(column.name), column.digits) for column in table.columns]
        gaps = [_signed(line.figures[c.name].mean - line.literature[c.name].value, c.digits)
                if c.name in line.figures and c.name in line.literature else "" for c in table.columns]
        paired = [_paired(line.differences.get(column.name), column.digits) for column in table.columns]
        label = line.line.label
        if line.rows:
            rows.append((f"{label}, ours" if line.literature else label, *ours, line.state))
        if line.literature:
            rows.append((f"{label}, literature" if line.rows else label, *theirs, ""))
        if any(gaps):
            rows.append(("– difference", *gaps, ""))
        if any(paired):
            rows.append((f"– less {line.against}", *paired, ""))
    return _Grid(table.title, ("", *(column.label for column in table.columns), "state"), rows, _notes(gathered))


def _notes(gathered: GatheredTable) -> tuple[str, ...]:
    figures = [figure for line in gathered.lines for figure in line.literature.values()]
    notes = [gathered.table.note] if gathered.table.note else []
    if any(line.figures[name].half_width is not None for line in gathered.lines for name in line.figures):
        notes.append(_INTERVAL)
    if any(figure.confidence == "recalled" for figure in figures):
        notes.append(_RECALLED)
    for confidence in published.CONFIDENCES:
        sources = dict.fromkeys(figure.source for figure in figures if figure.confidence == confidence)
        if sources:
            notes.append(f"Literature, {confidence}: {'; '.join(sources)}.")
    return tuple(notes)


def _runs(gathered) -> _Grid:
    rows = []
    for row in gathered:
        folders = [folder for folder in row.folders.values() if folder.config]
        if not folders:
            continue
        rows.append((row.row.label, row.state, str(len(folders)), str(row.failed), str(row.rate or ""),
                     _several(folder.commit for folder in folders), row.row.config,
                     _several(folder.workdir / "train.log" for folder in folders), folders[0].command))
    return _Grid("Runs", ("", "state", "runs", "failed", "rate", "commit", "config", "log", "command of the first"), rows,
                 ("Failed: the loss was not finite, or the recall on validation stayed below twice chance.",), facts=True)


def _outstanding(tables, shown) -> _Grid:
    """Commands in the order in which they are to be run; a row that no table shows may be what others start from."""
    hours, rows = {}, []
    for line in (line for gathered in tables for line in gathered.lines):
        for command in line.commands:
            hours.setdefault(command, None)
    for row in shown.values():
        for i, command in enumerate(row.commands):
            hours[command] = (row.chip_hours, i == 0)
    for command, known in hours.items():
        value, first = known or (None, True)
        rows.append((command, "not known" if first and value is None else f"{value:,.0f}" if first and value else ""))
    return _Grid("Still to run", ("command", "chip-hours"), rows, facts=True)


def _ours(figure: Estimate | None, digits: int) -> str:
    if figure is None:
        return "–"
    return f"{figure.mean:.{digits}f}" + ("" if figure.half_width is None else f" ± {figure.half_width:.{digits}f}")


def _theirs(figure, digits: int) -> str:
    return "–" if figure is None else f"{figure.value:.{max(digits, _decimals(figure.value))}f}{figure.mark}"


def _decimals(value: float) -> int:
    """Digits after the point that a published figure has."""
    return len(f"{value}".partition(".")[2])


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}"


def _paired(difference: Estimate | None, digits: int) -> str:
    if difference is None:
        return ""
    spread = "" if difference.half_width is None else f" ± {difference.half_width:.{digits}f}"
    return f"{_signed(difference.mean, digits)}{spread}{' *' if difference.clear_of_zero else ''}"
