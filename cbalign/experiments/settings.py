"""Budget, rates and seeds of a suite that tries several, kept beside its runs."""

import dataclasses
import math
import os
from collections.abc import Iterable
from typing import Any

from etils import epath

from cbalign.errors import UserError
from cbalign.experiments.suite import Suite
from cbalign.storage import read_json, write_json

SETTINGS = "suite.json"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the runs of a suite have in common; stored as `suite.json` beside them.

    Attributes:
      suite: its name.
      steps: budget of each run, before a row's `steps_share`.
      rates: grid of learning rates.
      tuning_seeds: seeds every rate is tried with; their mean chooses the rate.
      seeds: seeds at the chosen rate, the tuning seeds among them.
      overrides: fields changed in all rows, "a.b=value" each.
    """

    suite: str
    steps: int
    rates: tuple[float, ...]
    tuning_seeds: int
    seeds: int
    overrides: tuple[str, ...] = ()


def read_settings(runs: os.PathLike | str) -> Settings | None:
    """The settings of the runs in a folder; None where it has none.

    Raises:
      UserError: the file is damaged or of another kind.
    """
    file = epath.Path(runs) / SETTINGS
    if not file.exists():
        return None
    stored: dict[str, Any] = read_json(file) or {}
    try:
        stored |= {name: tuple(stored[name]) for name in ("rates", "overrides")}
        return Settings(**stored)
    except (KeyError, TypeError) as error:
        raise UserError(f"{file} is not what cbalign suite writes; remove it, or name another --runs") from error


def make_settings(
    suite: Suite,
    runs: os.PathLike | str,
    *,
    seeds: int | None = None,
    tuning_seeds: int | None = None,
    steps: int | None = None,
    rates: str | None = None,
    overrides: Iterable[str] = (),
) -> Settings | None:
    """Settings as given; what is not given is as the runs in the folder have it, else the suite's default.

    Args:
      suite: which.
      runs: folder of its runs.
      seeds: of each row, or None.
      tuning_seeds: of them those that choose the rate, or None.
      steps: of each run, or None.
      rates: numbers separated by commas, or None.
      overrides: "a.b=value" each.

    Returns:
      None for a suite of one run a row, which has no settings.

    Raises:
      UserError: a number or rate out of range, or any for a suite without settings.
    """
    given: dict[str, Any] = {"seeds": seeds, "tuning_seeds": tuning_seeds, "steps": steps, "rates": rates}
    given = {name: value for name, value in given.items() if value is not None}
    overrides = tuple(overrides)
    if suite.search is None:
        flags = [f"--{name.replace('_', '-')}" for name in given]
        flags += [f"--config.{text.partition('=')[0]}" for text in overrides]
        if flags:
            raise UserError(f"{flags[0]} is not for the suite {suite.name}: its configs determine its runs")
        return None
    if rates is not None:
        given["rates"] = _parse_rates(rates)
    if overrides:
        given["overrides"] = overrides
    default = Settings(suite.name, suite.search.steps, suite.search.rates, tuning_seeds=1, seeds=5)
    settings = dataclasses.replace(read_settings(runs) or default, **given)
    for name in ("seeds", "tuning_seeds", "steps"):
        if getattr(settings, name) < 1:
            raise UserError(f"--{name.replace('_', '-')}={getattr(settings, name)} must be 1 or more")
    if settings.seeds < settings.tuning_seeds:
        raise UserError(
            f"--seeds={settings.seeds} is less than --tuning-seeds={settings.tuning_seeds}; the seeds that "
            "choose the rate are among those that are tested"
        )
    return settings


def _parse_rates(text: str) -> tuple[float, ...]:
    try:
        rates = tuple(float(word) for word in text.split(","))
    except ValueError as error:
        raise UserError(f"--rates={text} must be numbers separated by commas, as in 1e-3,2e-3") from error
    if not all(0 < rate < math.inf for rate in rates):
        raise UserError(f"--rates={text} must be above 0")
    return rates


def keep_settings(runs: os.PathLike | str, settings: Settings) -> None:
    """Writes the settings beside the runs; all runs in a folder share them, only the seeds may grow or shrink.

    Raises:
      UserError: the folder has runs of another suite, budget or grid.
    """
    stored = read_settings(runs)
    if stored is not None and dataclasses.replace(stored, seeds=settings.seeds) != settings:
        changed = [
            f"{field.name} {getattr(stored, field.name)!r} -> {getattr(settings, field.name)!r}"
            for field in dataclasses.fields(settings)
            if field.name != "seeds" and getattr(stored, field.name) != getattr(settings, field.name)
        ]
        raise UserError(f"{runs} holds runs with other settings ({'; '.join(changed)}); name another --runs")
    write_json(epath.Path(runs) / SETTINGS, dataclasses.asdict(settings))
