"""The trials of a small suite: each row at every rate of the grid, and at the best of them with every seed."""

import dataclasses
import json
import math
import os

from etils import epath

from cbalign.errors import UserError
from cbalign.experiments.run_status import DIVERGED, FINISHED, RunFolder, read_json, read_run
from cbalign.experiments.suite import Column, Row
from cbalign.experiments.small import SmallSuite

SETTINGS = "suite.json"
STABILITY = "metrics/stability.json"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the runs of a suite have in common; kept in `suite.json` beside them.

    Attributes:
      suite: its name.
      steps: budget of each run.
      rates: grid of learning rates.
      tuning_seeds: seeds that every rate is tried with; the rate is chosen by their mean.
      seeds: seeds at the chosen rate, the tuning ones among them.
      overrides: fields changed in all rows, "a.b=value" each.
    """

    suite: str
    steps: int
    rates: tuple[float, ...]
    tuning_seeds: int
    seeds: int
    overrides: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run of a row."""

    row: Row
    rate: float
    seed: int

    def workdir(self, runs) -> epath.Path:
        """Its folder among the suite's runs."""
        return epath.Path(runs) / self.row.name / f"rate_{self.rate:g}" / f"seed_{self.seed}"

    def overrides(self, settings: Settings, *, steps_per_epoch: int) -> list[str]:
        """Everything that is changed in the row's config.

        Schedules follow the budget. Nothing is evaluated, hence no checkpoint chosen, on the way: each run is judged
        at its last step. All checkpoints of the ends of epochs stay until the stability is measured.
        """
        steps = settings.steps
        saved = min(steps_per_epoch, max(1, steps // 2))
        return [
            *settings.overrides, *self.row.overrides,
            f"seed={self.seed}", f"optimizer.learning_rate={self.rate!r}",
            f"optimizer.warmup_steps={max(1, min(100, steps // 10))}", f"contrast.alpha_ramp_steps={steps * 3 // 10}",
            f"train.steps={steps}", "train.epochs=0", "train.eval_steps=0", f"train.checkpoint_steps={saved}",
            f"train.keep={math.ceil(steps / saved) + 1}", "eval.splits=()", "eval.best_split=", "eval.baselines=False",
            "eval.rerank_top_k=1",  # the tables rank by the contrastive score alone
        ]


def read_settings(runs) -> Settings | None:
    """The settings that runs in this folder were made with, or None.

    Raises:
      UserError: the file is broken or of another kind.
    """
    file = epath.Path(runs) / SETTINGS
    if not file.exists():
        return None
    stored = read_json(file)
    try:
        lists = {name: tuple(stored[name]) for name in ("rates", "overrides")}
        return Settings(**{**stored, **lists})
    except (KeyError, TypeError) as error:  # a broken file reads as None
        raise UserError(f"{file} is not what cbalign suite writes; remove it, or name another --runs") from error


def make_settings(suite: SmallSuite, runs, *, seeds=None, tuning_seeds=None, steps=None, rates=None,
                  overrides=()) -> Settings:
    """Settings as asked for; what was not asked for is as the runs in the folder have it, else the suite's own.

    Args:
      suite: which.
      runs: folder of its runs.
      seeds, tuning_seeds, steps: numbers, or None.
      rates: numbers with commas between, or None.
      overrides: "a.b=value" each.

    Raises:
      UserError: a number or a rate that makes no sense.
    """
    settings = read_settings(runs) or Settings(suite.name, suite.steps, suite.rates, tuning_seeds=1, seeds=5)
    asked = {"seeds": seeds, "tuning_seeds": tuning_seeds, "steps": steps, "overrides": tuple(overrides) or None}
    if rates is not None:
        try:
            asked["rates"] = tuple(float(word) for word in rates.split(","))
        except ValueError as error:
            raise UserError(f"--rates={rates} must be numbers with commas between, as in 1e-3,2e-3") from error
        if not all(0 < rate < math.inf for rate in asked["rates"]):
            raise UserError(f"--rates={rates} must be above 0")
    settings = dataclasses.replace(settings, **{name: value for name, value in asked.items() if value is not None})
    for name in ("seeds", "tuning_seeds", "steps"):
        if getattr(settings, name) < 1:
            raise UserError(f"--{name.replace('_', '-')}={getattr(settings, name)} must be 1 or more")
    if settings.seeds < settings.tuning_seeds:
        raise UserError(f"--seeds={settings.seeds} is less than --tuning-seeds={settings.tuning_seeds}; the seeds that "
                        "choose the rate are among those that are tested")
    return settings


def keep_settings(runs, settings: Settings) -> None:
    """Writes the settings; a folder holds runs of one kind.

    Raises:
      UserError: the folder has runs of another suite, budget or grid.
    """
    runs, stored = epath.Path(runs), read_settings(runs)
    if stored is not None and dataclasses.replace(stored, seeds=settings.seeds) != settings:
        changed = [f"{field.name} {getattr(stored, field.name)!r} -> {getattr(settings, field.name)!r}"
                   for field in dataclasses.fields(settings)
                   if field.name != "seeds" and getattr(stored, field.name) != getattr(settings, field.name)]
        raise UserError(f"{runs} holds runs with other settings ({'; '.join(changed)}); name another --runs")
    runs.mkdir(parents=True, exist_ok=True)
    # Other processes may be reading it.
    partial = runs / f"{SETTINGS}.{os.getpid()}.partial"
    partial.write_text(json.dumps(dataclasses.asdict(settings), indent=2) + "\n")
    partial.replace(runs / SETTINGS)


def is_ready(folder: RunFolder, evaluations) -> bool:
    """Whether a trial is at its end: diverged, or trained, measured and evaluated."""
    if folder.status == DIVERGED:
        return True
    return (folder.status == FINISHED and (folder.workdir / STABILITY).exists()
            and all(folder.result(evaluation) is not None for evaluation in evaluations))


def score(folder: RunFolder, suite: SmallSuite) -> float:
    """Mean recall on the validation evaluations, in %; 0 of a run that diverged."""
    if folder.status == DIVERGED:
        return 0.0
    values = [folder.figure(Column("", "", evaluation, ("contrastive",))) for evaluation in suite.validation]
    return sum(value or 0.0 for value in values) / len(values)


def tuning_trials(row: Row, settings: Settings) -> list[Trial]:
    """The trials that choose a row's rate."""
    return [Trial(row, rate, seed) for rate in settings.rates for seed in range(settings.tuning_seeds)]


def chosen_rate(suite: SmallSuite, row: Row, settings: Settings, runs) -> float | None:
    """The rate of the highest mean validation score over the tuning seeds; None as long as a trial is outstanding."""
    scores = {}
    for trial in tuning_trials(row, settings):
        folder = read_run(trial.workdir(runs))
        if not is_ready(folder, suite.validation):
            return None
        scores.setdefault(trial.rate, []).append(score(folder, suite))
    return max(scores, key=lambda rate: sum(scores[rate]))


def final_trials(row: Row, rate: float, settings: Settings) -> list[Trial]:
    """The trials a row is judged by."""
    return [Trial(row, rate, seed) for seed in range(settings.seeds)]
