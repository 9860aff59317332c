"""Collects the results of a suite: figures, differences, the literature's figures, and what is still to be run."""

import dataclasses
import os
from collections.abc import Iterable, Mapping

from etils import epath

from cbalign.config import plain_name
from cbalign.errors import UserError
from cbalign.experiments import published, trials
from cbalign.experiments.engine import TRAIN, Job, command, missing_steps, typed
from cbalign.experiments.run_status import DIVERGED, FINISHED, MISSING, RunFolder, read_run
from cbalign.experiments.server_figures import read_figures
from cbalign.experiments.settings import Settings
from cbalign.experiments.statistics import Estimate, estimate, paired_difference
from cbalign.experiments.suite import Column, Line, Measurement, Row, Search, ServerFigure, Suite, Table
from cbalign.storage import read_json

# A finished run whose recall is below twice that of a random ranking counts as failed.
_COLLAPSED = 2.0


@dataclasses.dataclass(frozen=True)
class GatheredRow:
    """The runs of one row.

    Attributes:
      row: which.
      state: in words: "finished", "partial, step 300 of 1,600", "3 of 5 seeds".
      folders: {seed: its run}; the only run of a row has seed 0.
      server: {split: figure} that an evaluation server returned.
      rate: the learning rate chosen for the row, or None where none was chosen.
      failed: how many of the runs diverged or learned nothing.
      commands: what makes the missing part of the row, in order.
      chip_hours: estimate for that part, or None; 0 where nothing is left to train.
    """

    row: Row
    state: str
    folders: dict[int, RunFolder]
    server: dict[str, float] = dataclasses.field(default_factory=dict)
    rate: float | None = None
    failed: int = 0
    commands: tuple[str, ...] = ()
    chip_hours: float | None = None

    def has(self, source) -> bool:
        """Whether the row has a column's source, if only it is run."""
        if isinstance(source, ServerFigure):
            return source.config == self.row.config
        return isinstance(source, Measurement) or source in self.row.evaluations

    def values(self, column: Column) -> dict[int, float]:
        """{seed: figure} of the finished runs."""
        if isinstance(column.source, ServerFigure):
            figure = self.server.get(column.source.split)
            return {} if figure is None else {0: figure}
        found = {seed: folder.figure(column) for seed, folder in self.folders.items() if folder.status == FINISHED}
        return {seed: value for seed, value in found.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class GatheredLine:
    """A line of a table with everything known about it.

    Attributes:
      line: which.
      rows: the rows it is made of.
      figures: {column name: ours}.
      differences: {column name: paired difference to `against`}.
      against: label of the row the differences are taken to, one of the same table, or "".
      literature: {column name: published figure}.
      commands: what makes the missing part of the rows and of those they start from, in order.
      chip_hours: estimate of it, or None.
    """

    line: Line
    rows: tuple[GatheredRow, ...]
    figures: dict[str, Estimate]
    differences: dict[str, Estimate]
    against: str
    literature: dict[str, published.Figure]
    commands: tuple[str, ...]
    chip_hours: float | None

    @property
    def state(self) -> str:
        """One state for all rows, or each with its name."""
        states = [row.state for row in self.rows]
        if len(set(states)) <= 1:
            return states[0] if states else "literature only"
        return "; ".join(f"{row.row.name}: {row.state}" for row in self.rows)


@dataclasses.dataclass(frozen=True)
class GatheredTable:
    """A table and its lines."""

    table: Table
    lines: tuple[GatheredLine, ...]


def gather(
    suite: Suite,
    runs: os.PathLike | str,
    *,
    settings: Settings | None = None,
    chip_hours: Mapping[str, float] | None = None,
) -> list[GatheredTable]:
    """Reads the runs of a suite.

    Args:
      suite: which.
      runs: folder of its runs; none need exist.
      settings: of a suite that tries seeds and rates.
      chip_hours: {row or config: estimate} of full-size runs, see `read_chip_hours`.
    """
    job, server = Job(suite, epath.Path(runs), settings), read_figures(runs)
    if suite.search and settings:
        rows = {row.name: _searched_row(job, suite.search, settings, row) for row in suite.rows}
    else:
        rows = {row.name: _single_row(job, row, server, chip_hours or {}) for row in suite.rows}
    return [
        GatheredTable(table, tuple(_line(suite, table, line, rows) for line in table.lines)) for table in suite.tables
    ]


def _line(suite: Suite, table: Table, line: Line, rows: dict[str, GatheredRow]) -> GatheredLine:
    own, shown = tuple(rows[name] for name in line.rows), {name for other in table.lines for name in other.rows}
    figures, differences, against = {}, {}, ""
    for column in table.columns:
        source = next((row for row in own if row.has(column.source)), None)
        values = source.values(column) if source else {}
        if values:
            figures[column.name] = estimate(list(values.values()))
        if source and source.row.against in shown:
            before = rows[source.row.against]
            against = before.row.label
            if difference := paired_difference(values, before.values(column)):
                differences[column.name] = difference
    needed = [rows[row.name] for row in suite.select(line.rows)] if line.rows else []
    hours = [row.chip_hours for row in needed if row.commands]
    known = [value for value in hours if value is not None]
    return GatheredLine(
        line,
        own,
        figures,
        differences,
        against,
        published.figures(table.literature, line.method),
        commands=tuple(text for row in needed for text in row.commands),
        chip_hours=sum(known) if known and len(known) == len(hours) else None,
    )


def _planned(chip_hours: Mapping[str, float], row: Row) -> float | None:
    """The estimate for a row; that of its config holds only where the row changes nothing in it."""
    return chip_hours.get(row.name, None if row.overrides else chip_hours.get(plain_name(row.config)))


def _single_row(job: Job, row: Row, server: Mapping[str, float], chip_hours: Mapping[str, float]) -> GatheredRow:
    """A row of one run."""
    (trial,) = trials.known_trials(job.suite, row, None, job.runs)
    folder, left = read_run(trial.workdir(job.runs)), missing_steps(job, row)
    state = {FINISHED: "not evaluated" if left else "finished", MISSING: "no run"}.get(
        folder.status, f"{folder.status}, step {folder.step:,} of {folder.steps:,}"
    )
    if folder.message and folder.status not in (FINISHED, MISSING):
        state += f" ({folder.message})"
    if folder.rehearsal:
        state += " (rehearsal)"
    figures = {key.partition(".")[2]: value for key, value in server.items() if key.partition(".")[0] == row.name}
    training = any(step.kind == TRAIN for step in left)
    return GatheredRow(
        row,
        state,
        {0: folder},
        figures,
        failed=int(folder.status == DIVERGED),
        commands=tuple(typed(command(job, step)) for step in left),
        chip_hours=_planned(chip_hours, row) if training else 0.0,
    )


def _searched_row(job: Job, search: Search, settings: Settings, row: Row) -> GatheredRow:
    """A row of several seeds at the rate chosen for it."""
    suite, runs = job.suite, job.runs
    rate = trials.chosen_rate(search, row, settings, runs)
    known = trials.known_trials(suite, row, settings, runs)
    found = {trial: read_run(trial.workdir(runs)) for trial in known}
    over = {trial: folder for trial, folder in found.items() if trials.is_over(folder, trial.evaluations)}
    commands = (typed(("suite", f"--suite={suite.name}", f"--runs={runs}", f"--only={row.name}")),)
    if rate is None:
        begun = any(folder.status != MISSING for folder in found.values())
        state = f"partial, {len(over)} of {len(known)} runs that choose the rate" if begun else "no run"
        return GatheredRow(row, state, {}, commands=commands)
    complete = len(over) == len(known)
    return GatheredRow(
        row,
        "finished" if complete else f"partial, {len(over)} of {len(known)} seeds",
        {trial.seed: folder for trial, folder in over.items()},
        rate=rate,
        failed=sum(folder.status == DIVERGED or _collapsed(search, folder) for folder in over.values()),
        commands=() if complete else commands,
    )


def _collapsed(search: Search, folder: RunFolder) -> bool:
    chance = [
        value
        for evaluation in search.validation
        for value in ((folder.result(evaluation) or {}).get("chance") or {}).values()
    ]
    return bool(chance) and trials.score(search, folder) < _COLLAPSED * sum(chance) / len(chance)


def read_chip_hours(files: Iterable[os.PathLike | str]) -> dict[str, float]:
    """{row of a suite, or config: chip-hours} from what `cbalign plan --json` wrote.

    Args:
      files: any number; where two are about the same one, the later counts.

    Raises:
      UserError: a file that is missing or of another kind.
    """
    hours = {}
    for file in files:
        content = read_json(file) or {}
        try:
            for row in content.get("rows") or [content]:
                hours[row.get("row") or plain_name(row["config"])] = float(row["chip_hours"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{file} is not what cbalign plan --json writes") from error
    return hours
