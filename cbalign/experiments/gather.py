"""What the runs of a suite came to: figures, differences, the literature's figures, and what is still to be run."""

import dataclasses

from cbalign.errors import UserError
from cbalign.experiments import published
from cbalign.experiments import steps
from cbalign.experiments import trials
from cbalign.experiments.run_status import DIVERGED, FINISHED, MISSING, RunFolder, read_json, read_run
from cbalign.experiments.suite import Line, Row, Suite, Table
from cbalign.experiments.small import SmallSuite
from cbalign.experiments.statistics import Estimate, estimate, paired_difference

# Below twice what a random ranking finds, a run that ended is counted as failed: it learned nothing.
_COLLAPSED = 2.0


@dataclasses.dataclass(frozen=True)
class GatheredRow:
    """The runs of one row.

    Attributes:
      row: which.
      state: in words: "finished", "partial, step 300 of 1,600", "3 of 5 seeds".
      complete: whether nothing is left to do.
      folders: {seed: its run}; one run has seed 0.
      rate: the learning rate chosen for the row, or None where none was chosen.
      failed: how many of the runs diverged or learned nothing.
      commands: what makes the row's missing part, in order.
      chip_hours: estimate of that part, or None; 0 where nothing is left to train.
    """

    row: Row
    state: str
    complete: bool
    folders: dict[int, RunFolder]
    rate: float | None = None
    failed: int = 0
    commands: tuple[str, ...] = ()
    chip_hours: float | None = None

    def values(self, column) -> dict[int, float]:
        """{seed: figure} of the runs that came to an end."""
        found = {seed: folder.figure(column) for seed, folder in self.folders.items() if folder.status == FINISHED}
        return {seed: value for seed, value in found.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class GatheredLine:
    """A line of a table with everything that is known of it.

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


def gather(suite: Suite, runs, *, settings: trials.Settings | None = None, chip_hours: dict | None = None):
    """Reads the runs of a suite.

    Args:
      suite: which.
      runs: folder of its runs; none need exist.
      settings: of a small suite.
      chip_hours: {config file: estimate} of full-size runs.

    Returns:
      [GatheredTable].
    """
    rows = {}
    for row in suite.rows:
        if isinstance(suite, SmallSuite):
            rows[row.name] = _small_row(suite, row, settings, runs)
        else:
            rows[row.name] = _row(suite, row, runs, chip_hours or {})
    return [GatheredTable(table, tuple(_line(suite, table, line, rows) for line in table.lines))
            for table in suite.tables]


def _line(suite, table, line, rows) -> GatheredLine:
    own, shown = tuple(rows[name] for name in line.rows), {name for other in table.lines for name in other.rows}
    figures, differences, against = {}, {}, ""
    for column in table.columns:
        source = next((r for r in own if column.evaluation in r.row.evaluations), own[0] if own else None)
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
    return GatheredLine(
        line, own, figures, differences, against, published.figures(table.literature, line.method),
        commands=tuple(command for row in needed for command in row.commands),
        chip_hours=None if None in hours or not hours else sum(hours),
    )


def _row(suite: Suite, row: Row, runs, chip_hours) -> GatheredRow:
    """A row of one run."""
    folder = read_run(steps.workdir(row, runs))
    todo = [evaluation for evaluation in row.evaluations if folder.result(evaluation) is None]
    complete = folder.status == FINISHED and not todo
    state = {
        FINISHED: "not evaluated" if todo else "finished",
        MISSING: "no run",
    }.get(folder.status, f"{folder.status}, step {folder.step:,} of {folder.steps:,}")
    if folder.message and folder.status not in (FINISHED, MISSING):
        state += f" ({folder.message})"
    left = [step for step in steps.plan(suite, runs, only=(row.name,)) if step.row is row and not step.done]
    training = any(step.kind == "train" for step in left)
    return GatheredRow(
        row, state, complete, {0: folder}, failed=int(folder.status == DIVERGED),
        commands=tuple(step.command for step in left),
        chip_hours=chip_hours.get(row.config) if training else 0.0,
    )


def _small_row(suite: SmallSuite, row: Row, settings, runs) -> GatheredRow:
    """A row of several seeds at the rate chosen for it."""
    rate = trials.chosen_rate(suite, row, settings, runs)
    command = f"cbalign suite --suite={suite.name} --runs={runs} --only={row.name}"
    if rate is None:
        tuning = [read_run(trial.workdir(runs)) for trial in trials.tuning_trials(row, settings)]
        ready = sum(trials.is_ready(folder, suite.validation) for folder in tuning)
        begun = any(folder.status != MISSING for folder in tuning)
        state = f"partial, {ready} of {len(tuning)} runs that choose the rate" if begun else "no run"
        return GatheredRow(row, state, False, {}, commands=(command,))
    folders = {trial.seed: read_run(trial.workdir(runs)) for trial in trials.final_trials(row, rate, settings)}
    wanted = (*suite.validation, *row.evaluations)
    ready = {seed: folder for seed, folder in folders.items() if trials.is_ready(folder, wanted)}
    failed = sum(folder.status == DIVERGED or _collapsed(suite, folder) for folder in ready.values())
    complete = len(ready) == len(folders)
    state = "finished" if complete else f"partial, {len(ready)} of {len(folders)} seeds"
    return GatheredRow(row, state, complete, ready, rate, failed, commands=() if complete else (command,))


def _collapsed(suite: SmallSuite, folder: RunFolder) -> bool:
    chance = [value for evaluation in suite.validation
              for value in ((folder.result(evaluation) or {}).get("chance") or {}).values()]
    return bool(chance) and trials.score(folder, suite) < _COLLAPSED * sum(chance) / len(chance)


def read_chip_hours(files) -> dict[str, float]:
    """{config file: chip-hours} of what `cbalign plan --json` wrote.

    Args:
      files: one or several; where two tell of the same config, the later counts.

    Raises:
      UserError: a file that is missing or of another kind.
    """
    hours = {}
    for file in files:
        content = read_json(file) or {}
        try:
            hours[content["config"]] = float(content["chip_hours"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{file} is not what cbalign plan --json writes") from error
    return hours
