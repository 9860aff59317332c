"""Runs what a suite is missing: each step is a `cbalign` command, resumable, and skipped once its result is there."""

import contextlib
import dataclasses
import functools
import gc
import os
import shlex
from collections.abc import Callable, Iterable

from etils import epath

from cbalign.config import load_config
from cbalign.errors import UserError
from cbalign.experiments.run_status import DIVERGED, FINISHED, read_run
from cbalign.experiments.settings import Settings, keep_settings
from cbalign.experiments.suite import Evaluation, Measurement, Row, Suite
from cbalign.experiments.trials import Trial, chosen_rate, known_trials
from cbalign.runs.workdir import CHECKPOINTS, open_run, task_class, training_records

TRAIN, MEASURE, EVALUATE = "train", "measure", "evaluate"


@dataclasses.dataclass(frozen=True)
class Job:
    """A suite, where its runs are, and how they are made.

    Attributes:
      suite: which.
      runs: folder of its runs; need not exist.
      settings: of a suite that tries seeds and rates, else None.
      only: names of rows, run with all they start from; all rows where empty.
      weights: what rows start from that start from no other row, as in `config.init.weights`.
      overrides: fields changed in all rows of a rehearsal, "a.b=value" each.
    """

    suite: Suite
    runs: epath.Path
    settings: Settings | None = None
    only: tuple[str, ...] = ()
    weights: str = ""
    overrides: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Step:
    """One thing that is missing.

    Attributes:
      trial: the run it belongs to.
      kind: "train", "measure" (the stability) or "evaluate".
      evaluations: the missing ones that one command makes.
    """

    trial: Trial
    kind: str
    evaluations: tuple[Evaluation, ...] = ()


def missing_steps(job: Job, row: Row) -> list[Step]:
    """The steps of a row that are left, in order, as far as they are known: the chosen rate decides on later ones."""
    steps = []
    for trial in known_trials(job.suite, row, job.settings, job.runs):
        folder = read_run(trial.workdir(job.runs))
        if job.suite.search and folder.status == DIVERGED:
            continue  # an outcome: the same seed diverges again
        trained = folder.status == FINISHED
        if row.trains and not trained:
            steps.append(Step(trial, TRAIN))
        if job.suite.search and not (trained and folder.result(Measurement())):
            steps.append(Step(trial, MEASURE))
        groups = {}
        for evaluation in trial.evaluations:
            if not (trained and folder.result(evaluation)):
                groups.setdefault((evaluation.data, evaluation.protocol), []).append(evaluation)
        steps += [Step(trial, EVALUATE, tuple(group)) for group in groups.values()]
    return steps


def outstanding(job: Job) -> list[Step]:
    """The missing steps of all rows, each after those it needs."""
    return [step for row in job.suite.select(job.only) for step in missing_steps(job, row)]


def command(job: Job, step: Step) -> tuple[str, ...]:
    """The arguments of `cbalign` that do a step; () for a measurement, which is no command.

    Of a trial with a rate this reads the size of the data set, which is built where it is missing.
    """
    trial, row, workdir = step.trial, step.trial.row, step.trial.workdir(job.runs)
    if step.kind == EVALUATE:
        by = step.evaluations[0]
        source = [f"--config={by.protocol}"] if by.protocol else [f"--data={by.data}"] if by.data else []
        changed = [f"--config.{text}" for text in job.overrides if by.protocol]
        splits = [f"--split={evaluation.split}" for evaluation in step.evaluations]
        return ("evaluate", f"--workdir={workdir}", *source, *changed, *splits)
    if step.kind == MEASURE:
        return ()
    per_epoch = 1 if job.settings is None else _steps_per_epoch(row.config, job.settings.overrides + row.overrides)
    begin = epath.Path(job.runs) / row.after if row.after else job.weights
    start = [f"init.weights={begin}"] if begin else []
    overrides = (*start, *job.overrides, *trial.overrides(job.settings, steps_per_epoch=per_epoch))
    return ("train", f"--config={row.config}", f"--workdir={workdir}", *(f"--config.{text}" for text in overrides))


def typed(arguments: Iterable[str]) -> str:
    """A command as a user types it."""
    return shlex.join(["cbalign", *arguments])


def run_suite(job: Job, call: Callable[[list[str]], int], *, say: Callable[[str], None] = print) -> int:
    """Works through a suite; finished steps are skipped, interrupted runs resume.

    Several processes may work in one folder on local disk: each takes rows that no other process holds.

    Args:
      job: what to run.
      call: runs the arguments of a `cbalign` command and returns its exit code.
      say: called with a line for the user.

    Returns:
      0, or the exit code of the command that failed or was interrupted.

    Raises:
      UserError: other settings, a config or data set that cannot be used, or a command that left no result.
    """
    rows = job.suite.select(job.only)
    check(job)
    if job.settings is not None:
        with _locked(job.runs, job.suite.name, timeout=-1):
            keep_settings(job.runs, job.settings)
        _keep_compiled(job.runs)
    for row in rows:
        if row.after and missing_training(job, row.after):
            say(f"{row.name}: skipped, the run of {row.after} is not finished")
            continue
        with _locked(job.runs, row.name) as free:
            if not free:
                say(f"{row.name}: left to the process that works on it")
            elif code := _run_row(job, row, call, say):
                return code
        _forget_compiled()
    return 0


def missing_training(job: Job, name: str) -> bool:
    """Whether the run of a row is not trained yet."""
    row = job.suite.row(name)
    return any(step.kind == TRAIN for step in missing_steps(job, row))


def check(job: Job) -> None:
    """Finds mistakes before any work.

    Raises:
      UserError: a config that cannot be used, or a folder of real runs for a rehearsal, or the other way round.
    """
    for row in job.suite.select(job.only):
        trial = known_trials(job.suite, row, job.settings, job.runs)[0]
        config = load_config(row.config, (*job.overrides, *trial.overrides(job.settings)))
        task_class(config).check(config)
        folder = read_run(trial.workdir(job.runs))
        if folder.config and folder.rehearsal != config.rehearse:
            kind = "a rehearsal" if folder.rehearsal else "real runs"
            raise UserError(f"{job.runs} holds {kind} ({folder.workdir}); name another --runs")


def _run_row(job: Job, row: Row, call, say) -> int:
    """All missing steps of a row, looked up anew after each."""
    done: Step | None = None
    while left := missing_steps(job, row):
        step = left[0]
        if step == done:
            raise UserError(
                f"{typed(command(job, step)) if command(job, step) else step.kind} ended without leaving its "
                f"result in {step.trial.workdir(job.runs)}"
            )
        if done and step.trial != done.trial:
            _forget_compiled()
        if code := _run_step(job, step, call, say):
            return code
        done = step
    if job.suite.search and job.settings:
        rate, rates = chosen_rate(job.suite.search, row, job.settings, job.runs), job.settings.rates
        say(f"{row.name}: rate {rate:g} of {', '.join(f'{r:g}' for r in rates)}, chosen on validation")
    return 0


def _run_step(job: Job, step: Step, call, say) -> int:
    workdir, code = step.trial.workdir(job.runs), 0
    if step.kind == MEASURE:
        say(f"measuring the stability of {workdir}")
        _measure(workdir)
    else:
        arguments = command(job, step)
        say(typed(arguments))
        code = call(list(arguments))
    if code and job.suite.search and read_run(workdir).status == DIVERGED:
        say(f"{workdir} diverged; it counts as failed")
        return 0
    return code


def _measure(workdir: epath.Path) -> None:
    """Measures the stability, then removes all checkpoints but the last."""
    from cbalign.experiments.stability import checkpoint_steps, measure_run

    run = open_run(workdir)
    measure_run(run)
    for step in checkpoint_steps(run)[:-1]:
        (workdir / CHECKPOINTS / str(step)).rmtree()


@functools.cache
def _steps_per_epoch(name: str, overrides: tuple[str, ...]) -> int:
    from cbalign.data import pipeline

    config = load_config(name, overrides)
    return pipeline.steps_per_epoch(training_records(config).epoch_size, config.train.batch_size)


@contextlib.contextmanager
def _locked(runs: epath.Path, name: str, *, timeout: float = 0):
    """Holds a lock on a row; yields whether it was free.

    There are no locks in a bucket, nor where several processes train one run together.
    """
    import filelock

    from cbalign.distributed.cluster import how_to_join

    if "://" in str(runs) or how_to_join(os.environ) is not None:
        yield True
        return
    folder = epath.Path(runs) / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(str(folder / f"{name}.lock"), timeout=timeout)
    try:
        lock.acquire()
    except filelock.Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _keep_compiled(runs: epath.Path) -> None:
    """Stores compiled programs, which the seeds of a row share and a restarted suite finds again."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str((epath.Path(runs) / ".compiled").resolve()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def _forget_compiled() -> None:
    """Frees the programs of a finished run: a suite compiles several a run and returns to few of them."""
    import jax

    jax.clear_caches()
    gc.collect()
