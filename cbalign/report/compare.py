"""Several runs on one page: settings that differ, figures side by side with differences, curves overlaid."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from cbalign.config import field_names
from cbalign.errors import UserError
from cbalign.evaluation.result_table import COLUMNS, accuracy_rows, recall_rows, result_title
from cbalign.report import plots
from cbalign.report.history import History, read_history
from cbalign.report.templates import drawn, render
from cbalign.runs.workdir import Run
from cbalign.storage import write_atomically

_TEMPLATE = "compare.html.jinja"
# Rows of a result that depend on the data alone.
_WITHOUT_MODEL = ("chance", "pixel nearest neighbour", "bag of words", "blind guess")


@dataclasses.dataclass(frozen=True)
class Cell:
    """A figure of one run, and its difference to that of the first run; None where either is missing."""

    value: float | None
    difference: float | None


@dataclasses.dataclass(frozen=True)
class ComparedTable:
    """One way of answering on one split.

    Attributes:
      caption: the way, such as "contrastive".
      header: names of the figures.
      rows: (run, cells).
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


@dataclasses.dataclass(frozen=True)
class ComparedResult:
    """One split that at least one run was evaluated on.

    Attributes:
      title: data set, split and sizes, of the first run that has it.
      tables: one a way of answering.
      error: two standard errors of the difference of two shares near one half, from as many queries, in points.
    """

    title: str
    tables: tuple[ComparedTable, ...]
    error: float


def write_comparison(runs: Sequence[Run], out: epath.PathLike | str | None = None) -> epath.Path:
    """Writes a page that compares runs.

    Args:
      runs: two or more, from `open_run`; differences are to the first.
      out: the file; `compare.html` in the first run's workdir by default.

    Returns:
      The path of the page.

    Raises:
      UserError: fewer than two runs, or one named twice.
    """
    if len(runs) < 2:
        raise UserError("--compare needs at least two runs; name another one")
    folders = [run.workdir.resolve() for run in runs]
    if len(set(folders)) < len(folders):
        raise UserError("--compare names a run twice; name each once")
    names, histories = _names(folders), [read_history(run.workdir) for run in runs]
    metrics = [history.metrics for history in histories]
    page = render(
        _TEMPLATE,
        name=" and ".join(names) if len(names) == 2 else f"{len(names)} runs",
        names=names,
        folders=[str(run.workdir) for run in runs],
        overview=[
            (run.task.name, run.config.data.name, history.last_step, run.config.train.steps, run.config.seed)
            for run, history in zip(runs, histories)
        ],
        settings=different_settings([run.config for run in runs]),
        results=compared_results(names, histories),
        evaluations=_curves(names, metrics, plots.evaluation_panels),
        losses=_curves(names, metrics, _loss_panels(runs)),
        codebook=_curves(names, metrics, lambda _: plots.codebook_panels(runs[0].config.codebook.num_codes)),
        stability=_curves(
            names,
            [plots.stability_metrics(history.stability) for history in histories],
            lambda _: plots.stability_panels(),
        ),
    )
    return write_atomically(epath.Path(out) if out else runs[0].workdir / "compare.html", page)


def _names(folders: Sequence[epath.Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart, without what all of them end in."""
    for parts in range(1, max(len(folder.parts) for folder in folders) + 1):
        ends = [folder.parts[-parts:] for folder in folders]
        if len(set(ends)) == len(ends):
            break
    while len({end[-1:] for end in ends}) == 1 and len({end[:-1] for end in ends}) == len(ends):
        ends = [end[:-1] for end in ends]
    return ["/".join(end) for end in ends]


def different_settings(configs: Sequence[Any]) -> list[tuple[str, list[str]]]:
    """[(field, its value in each config)] of the fields that are not the same in all."""
    found = []
    for name in dict.fromkeys(name for config in configs for name in field_names(config)):
        values = [functools.reduce(lambda section, part: section[part], name.split("."), config) for config in configs]
        if any(value != values[0] for value in values):
            found.append((name, [str(value) for value in values]))
    return found


def compared_results(names: Sequence[str], histories: Sequence[History]) -> list[ComparedResult]:
    """The results of all runs, split by split."""
    by_split: dict[tuple, list[Mapping | None]] = {}
    for place, history in enumerate(histories):
        for result in history.results:
            key = (result["data"], result["split"], (result.get("protocol") or {}).get("name", ""))
            by_split.setdefault(key, [None] * len(histories))[place] = result
    return [_compared(names, results) for _, results in sorted(by_split.items())]


def _compared(names: Sequence[str], results: Sequence[Mapping | None]) -> ComparedResult:
    known = [result for result in results if result]
    ways: dict[str, None] = {}
    figures: list[dict[str, Mapping]] = []
    for result in results:
        rows = {}
        if result:
            rows = dict(accuracy_rows(result) if "accuracy" in result else recall_rows(result))
        figures.append({way: row for way, row in rows.items() if row})
        ways |= dict.fromkeys(figures[-1])
    tables = []
    for way in ways:
        shown = [row.get(way, {}) for row in figures]
        header = [c for c in COLUMNS if any(c in row for row in shown)] or list(
            dict.fromkeys(k for r in shown for k in r)
        )
        if way in _WITHOUT_MODEL:  # the same for all runs on the same data
            shown = shown[:1] if shown[0] else [next(row for row in shown if row)]
        rows = tuple(
            (name if way not in _WITHOUT_MODEL else "any run", tuple(_cell(row, shown[0], column) for column in header))
            for name, row in zip(names, shown)
        )
        tables.append(ComparedTable(way, tuple(column.upper() if "@" in column else column for column in header), rows))
    queries = min(next((r[n] for n in ("questions", "sentences", "captions", "images") if n in r), 1) for r in known)
    return ComparedResult(result_title(known[0]), tuple(tables), 200 * float(np.sqrt(0.5 / max(1, queries))))


def _cell(row: Mapping, first: Mapping, column: str) -> Cell:
    value, base = row.get(column), first.get(column)
    difference = value - base if row is not first and value is not None and base is not None else None
    return Cell(value, difference)


def _loss_panels(runs: Sequence[Run]):
    names = tuple(dict.fromkeys(name for run in runs for name in run.task.log_metrics))
    chance: dict[str, float] = {}
    for run in runs:
        chance |= run.task.chance_levels()
    return lambda metrics: plots.loss_panels(names, chance)


def _curves(names: Sequence[str], metrics: Sequence[Mapping], panels_of):
    """A plot for each metric of the panels, with a line for each run that has it."""
    together: dict[str, tuple] = {}
    for name, own in zip(names, metrics):
        together |= {f"{name}\n{metric}": values for metric, values in own.items()}
    merged = {metric: values for own in metrics for metric, values in own.items()}
    overlaid: dict[str, plots.Panel] = {}
    for panel in panels_of(merged):
        for metric, label in panel.lines:
            lines = tuple((f"{name}\n{metric}", name) for name in names)
            title = panel.title if len(panel.lines) == 1 else f"{panel.title}: {label}"
            if metric not in overlaid:
                overlaid[metric] = dataclasses.replace(panel, title=title, lines=lines, levels=())
    return drawn(list(overlaid.values()), together)
