"""The runs of a row: one, or one for each rate of a grid and then one for each seed at the best of them."""

import dataclasses
import math
import os

from etils import epath

from cbalign.experiments.run_status import DIVERGED, FINISHED, RunFolder, read_run
from cbalign.experiments.settings import Settings
from cbalign.experiments.suite import Column, Evaluation, Measurement, Row, Search, Suite


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run of a row.

    Attributes:
      row: which.
      evaluations: what the run is evaluated on.
      rate: its learning rate; None is the config's, for the only run of a row.
      seed: of everything random, where there is a rate.
      chooses: whether it only helps to choose the rate.
    """

    row: Row
    evaluations: tuple[Evaluation, ...]
    rate: float | None = None
    seed: int = 0
    chooses: bool = False

    def workdir(self, runs: os.PathLike | str) -> epath.Path:
        """Its folder among the suite's runs."""
        if self.rate is None:
            return epath.Path(runs) / (self.row.name if self.row.trains else self.row.after)
        return epath.Path(runs) / self.row.name / f"rate_{self.rate:g}" / f"seed_{self.seed}"

    def steps(self, settings: Settings) -> int:
        """Steps of the run, of a suite that has a budget."""
        return max(1, round(settings.steps * self.row.steps_share))

    def overrides(self, settings: Settings | None, *, steps_per_epoch: int = 1) -> tuple[str, ...]:
        """Everything that is changed in the row's config.

        Where there is a rate, schedules follow the budget. Nothing is evaluated during training, hence no checkpoint
        is selected: each run is judged at its last step. A checkpoint an epoch is kept until the stability is measured.
        """
        if self.rate is None or settings is None:
            return self.row.overrides
        steps = self.steps(settings)
        saved = min(steps_per_epoch, max(1, steps // 2))
        return (
            *settings.overrides,
            *self.row.overrides,
            f"seed={self.seed}",
            f"optimizer.learning_rate={self.rate!r}",
            f"optimizer.warmup_steps={max(1, min(100, steps // 10))}",
            f"contrast.alpha_ramp_steps={steps * 3 // 10}",
            f"train.steps={steps}",
            "train.epochs=0",
            "train.eval_steps=0",
            f"train.checkpoint_steps={saved}",
            f"train.keep={math.ceil(steps / saved) + 1}",
            "eval.splits=()",
            "eval.best_split=",
            "eval.baselines=False",
            "eval.rerank_top_k=1",  # the tables rank by the contrastive score only
        )


def tuning_trials(search: Search, row: Row, settings: Settings) -> list[Trial]:
    """The trials that choose a row's rate."""
    return [
        Trial(row, search.validation, rate, seed, chooses=True)
        for rate in settings.rates
        for seed in range(settings.tuning_seeds)
    ]


def final_trials(search: Search, row: Row, settings: Settings, rate: float) -> list[Trial]:
    """The trials a row is judged by."""
    evaluations = (*search.validation, *row.evaluations)
    return [Trial(row, evaluations, rate, seed) for seed in range(settings.seeds)]


def known_trials(suite: Suite, row: Row, settings: Settings | None, runs: os.PathLike | str) -> list[Trial]:
    """The trials of a row as far as they are known: the final ones follow once the rate is chosen."""
    if suite.search is None or settings is None:
        return [Trial(row, row.evaluations)]
    rate = chosen_rate(suite.search, row, settings, runs)
    if rate is None:
        return tuning_trials(suite.search, row, settings)
    return final_trials(suite.search, row, settings, rate)


def is_over(folder: RunFolder, evaluations: tuple[Evaluation, ...]) -> bool:
    """Whether a trial with a rate has its outcome: it diverged, or is trained, measured and evaluated."""
    if folder.status == DIVERGED:
        return True
    return folder.status == FINISHED and all(
        folder.result(source) is not None for source in (Measurement(), *evaluations)
    )


def score(search: Search, folder: RunFolder) -> float:
    """Mean recall on the validation evaluations, in %; 0 of a run that diverged."""
    if folder.status == DIVERGED:
        return 0.0
    values = [
        folder.figure(Column("", "", evaluation, ("contrastive",), mean=True)) for evaluation in search.validation
    ]
    return sum(value or 0.0 for value in values) / len(values)


def chosen_rate(search: Search, row: Row, settings: Settings, runs: os.PathLike | str) -> float | None:
    """The rate of the highest mean validation score over the tuning seeds; None while a tuning trial is outstanding."""
    scores: dict[float | None, list[float]] = {}
    for trial in tuning_trials(search, row, settings):
        folder = read_run(trial.workdir(runs))
        if not is_over(folder, trial.evaluations):
            return None
        scores.setdefault(trial.rate, []).append(score(search, folder))
    return max(scores, key=lambda rate: sum(scores[rate]))
