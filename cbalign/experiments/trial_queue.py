"""Runs what a small suite lacks: one trial after the other, each resumable, all of them restartable."""

import gc
import shlex

import filelock
from etils import epath

from cbalign.config import load_config
from cbalign.errors import DivergedError
from cbalign.experiments import trials
from cbalign.experiments.run_status import FINISHED, read_run
from cbalign.experiments.suite import Row
from cbalign.experiments.small import SmallSuite
from cbalign.experiments.trials import Settings, Trial


def outstanding(suite: SmallSuite, settings: Settings, runs, *, only=()) -> list[tuple[Trial, bool]]:
    """What is left to do as far as it is known: the trials after a row's tuning follow once its rate is chosen.

    Returns:
      [(trial, whether it is one of the row's final ones, to be evaluated on the test splits as well)].
    """
    left = []
    for row in suite.select(only):
        todo = [(trial, False) for trial in trials.tuning_trials(row, settings)
                if not trials.is_ready(read_run(trial.workdir(runs)), suite.validation)]
        if not todo:
            rate = trials.chosen_rate(suite, row, settings, runs)
            todo = [(trial, True) for trial in trials.final_trials(row, rate, settings)
                    if not trials.is_ready(read_run(trial.workdir(runs)), (*suite.validation, *row.evaluations))]
        left += todo
    return left


def run_suite(suite: SmallSuite, settings: Settings, runs, *, only=(), say=print) -> str:
    """Works through the suite; what is done stays done, what was interrupted goes on.

    Several processes may work in one folder: a row that another one is at is left to it.

    Args:
      suite: which.
      settings: written beside the runs.
      runs: folder of the runs.
      only: names of rows; all by default.
      say: called with a line for people.

    Returns:
      The name of the signal that stopped it, or "".

    Raises:
      UserError: other settings, or a config or data set that is wrong.
    """
    runs = epath.Path(runs)
    rows = suite.select(only)
    for row in rows:
        _config(row, settings, trials.tuning_trials(row, settings)[0], steps_per_epoch=1)  # mistakes before any work
    runs.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(str(runs / ".lock")):
        trials.keep_settings(runs, settings)
    _keep_compiled(runs / ".compiled")
    for row in rows:
        (runs / row.name).mkdir(exist_ok=True)
        try:
            with filelock.FileLock(str(runs / row.name / ".lock"), timeout=0):
                signal = _run_row(suite, row, settings, runs, say)
        except filelock.Timeout:
            say(f"{row.name}: left to the process that is at it")
            continue
        if signal:
            return signal
    return ""


def _run_row(suite, row, settings, runs, say) -> str:
    """All trials of one row; returns the signal that stopped it, or ""."""
    for trial in trials.tuning_trials(row, settings):
        if signal := _run_trial(suite, trial, settings, runs, suite.validation, say):
            return signal
    rate = trials.chosen_rate(suite, row, settings, runs)
    say(f"{row.name}: rate {rate:g} of {', '.join(f'{r:g}' for r in settings.rates)}, chosen on validation")
    for trial in trials.final_trials(row, rate, settings):
        if signal := _run_trial(suite, trial, settings, runs, (*suite.validation, *row.evaluations), say):
            return signal
    return ""


def _run_trial(suite, trial: Trial, settings, runs, evaluations, say) -> str:
    """Trains, measures and evaluates one trial as far as that is not done yet."""
    import jax

    from cbalign.runs import workdir as running

    folder = read_run(trial.workdir(runs))
    if trials.is_ready(folder, evaluations):
        return ""
    say(f"{suite.name}: {trial.row.name}, rate {trial.rate:g}, seed {trial.seed}")
    if folder.status != FINISHED:
        config = _config(trial.row, settings, trial, steps_per_epoch=_steps_per_epoch(trial.row, settings))
        try:
            outcome = running.train(config, folder.workdir, command=_command(trial, settings, folder.workdir))
        except DivergedError as error:
            say(f"diverged: {error}")
            return ""
        if outcome.interrupted_by:
            return outcome.interrupted_by
    _judge(folder.workdir, evaluations)
    # A suite compiles several programs a run and never comes back to most of them.
    jax.clear_caches()
    gc.collect()
    return ""


def _judge(workdir, evaluations) -> None:
    """Measures the stability once, then lets go of all checkpoints but the last, and evaluates."""
    from cbalign.runs import workdir as running
    from cbalign.experiments.stability import measure_run

    opened = running.open_run(workdir)
    if not (workdir / trials.STABILITY).exists():
        measure_run(opened)
    checkpoints = sorted((path for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()),
                         key=lambda path: int(path.name))
    for path in checkpoints[:-1]:
        path.rmtree()
    folder = read_run(workdir)
    for evaluation in evaluations:
        if folder.result(evaluation) is None:
            running.evaluate(opened, evaluation.split, data=evaluation.data, checkpoint="latest")


def _config(row: Row, settings, trial, *, steps_per_epoch):
    return load_config(row.config, trial.overrides(settings, steps_per_epoch=steps_per_epoch))


def _command(trial, settings, workdir) -> str:
    """The command that makes the same run by itself."""
    overrides = trial.overrides(settings, steps_per_epoch=_steps_per_epoch(trial.row, settings))
    return shlex.join(["cbalign", "train", f"--config={trial.row.config}", f"--workdir={workdir}",
                       *(f"--config.{override}" for override in overrides)])


def _steps_per_epoch(row: Row, settings: Settings) -> int:
    from cbalign.data import pipeline
    from cbalign.data.datasets import catalogue

    config = load_config(row.config, list(settings.overrides))
    info = catalogue.prepare(config.data.name, config.data.dir or None).info
    return pipeline.steps_per_epoch(info.splits[config.data.train_split].num_examples, config.train.batch_size)


def _keep_compiled(folder) -> None:
    """Compiled programs outlive the process: the seeds of a row, and a suite started again, find them there."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(folder.resolve()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
