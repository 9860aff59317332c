"""Training a run: the one way for all tasks."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from cbalign.config import check_config, resolve_epochs
from cbalign.data.text_lengths import text_lines
from cbalign.distributed import devices
from cbalign.distributed.processes import StopSignals
from cbalign.runs.initialize import check_init, initial_state, load_weights, parameter_table, write_vocabulary
from cbalign.runs.lock import held
from cbalign.runs.workdir import CHECKPOINTS, Run, evaluated_params, prepare_workdir, recorded, task_class
from cbalign.tasks import Task
from cbalign.training.checkpoints import Checkpoints
from cbalign.training.loop import Loop, Outcome, Schedule
from cbalign.training.optimizer import build_optimizer, group_table
from cbalign.training.run_log import RunLog
from cbalign.training.state import TrainState, init_state
from cbalign.training.step import train_step

# Stands for the data set's epoch length where none is read; it changes no shape.
_STEPS_PER_EPOCH = 1000
_HUGE_PAGES = "/sys/kernel/mm/transparent_hugepage/enabled"


def train_run(config: Any, workdir: os.PathLike | str, *, command: str = "", fall_back: bool = False) -> Outcome:
    """Trains, or resumes, the run of a config in a workdir.

    Args:
      config: from `load_config`.
      workdir: a new folder, or one that holds a run of the same config.
      command: what the user typed, for run.json.
      fall_back: resume from an older checkpoint where the newest cannot be read.

    Raises:
      UserError: a config, data, weights or folder that cannot be used.
      DivergedError: a loss that is not finite; the last good checkpoint is kept.
    """
    check_config(config)
    task_class(config).check(config, devices=jax.device_count())
    check_init(config)
    run, steps_per_epoch = prepare_workdir(config, workdir, write_vocabulary=write_vocabulary)
    with held(run.workdir), recorded(run.workdir, command) as end:
        outcome = _train(run, steps_per_epoch, fall_back=fall_back)
        end.update(step=outcome.step, interrupted_by=outcome.interrupted_by)
    return outcome


def _train(run: Run, steps_per_epoch: int, *, fall_back: bool) -> Outcome:
    config, task, train = run.config, run.task, run.config.train
    splits = {split: run.split(split) for split in config.eval.splits}

    def evaluate(state):
        params = evaluated_params(state, config)
        return {name: task.evaluate(params, split, quick=True).result for name, split in splits.items()}

    make_state, optimizer, learning_rate = state_factory(task, config, steps_per_epoch=steps_per_epoch)
    with Checkpoints(run.workdir / CHECKPOINTS, keep=train.keep) as checkpoints, StopSignals() as signals:
        start = initial_state(
            make_state,
            checkpoints,
            checkpoint=config.init.checkpoint,
            weights=config.init.weights,
            load_weights=functools.partial(load_weights, run),
            steps=train.steps,
            seed=config.seed,
            batch_size=train.batch_size,
            fall_back=fall_back,
        )
        checkpoints.forget_after(start.step)
        log = RunLog(
            run.workdir,
            start_step=start.step,
            steps=train.steps,
            steps_per_epoch=steps_per_epoch,
            active=jax.process_index() == 0,
        )
        try:
            _log_start(log, run, start)
            loop = Loop(
                devices.map_step(bind_step(task, config, optimizer=optimizer, learning_rate=learning_rate)),
                Schedule(train.steps, steps_per_epoch, train.log_steps, train.checkpoint_steps, train.eval_steps),
                train.batch_size,
                checkpoints,
                log,
                signals,
                evaluate if splits else None,
                task.headline,
                config.eval.best_split,
                task.log_metrics,
            )
            return loop.run(start.state, start.step, functools.partial(_batches, run))
        finally:
            log.close()


def _log_start(log: RunLog, run: Run, start) -> None:
    """What a reader of the log wants to know before the first step."""
    log.log(start.origin)
    for line in run.train_split.records.epoch_lines():
        log.log(line)
    log.log(f"{jax.device_count()} {jax.devices()[0].platform} device(s), {jax.process_count()} process(es)")
    if jax.devices()[0].platform == "cpu" and (note := huge_pages_note(_HUGE_PAGES, os.environ)):
        log.log(note)
    log.log(parameter_table(devices.fetch(start.state.params), initial_rms=start.initial_rms))
    log.log(group_table(start.state.params, run.config.optimizer.groups))
    levels = run.task.chance_levels()
    data = run.config.data
    limits = {"max_tokens": data.max_tokens, "max_words": data.max_words}
    for line in text_lines(run.train_split, run.tokenizer, **limits, cleaning=run.task.text_cleaning):
        log.log(line)
    log.log("chance levels: " + ", ".join(f"{name} {value:.3f}" for name, value in levels.items()))


def huge_pages_note(setting: os.PathLike | str, environment: Mapping[str, str]) -> str:
    """What would give large arrays huge pages on this machine, where the kernel leaves that to the program; else "".

    Args:
      setting: the kernel's file.
      environment: of this process; glibc reads it as the process starts, so that nothing can be set from within.
    """
    try:
        choices = pathlib.Path(setting).read_text()
    except OSError:
        return ""
    if "[madvise]" not in choices or "glibc.malloc.hugetlb" in environment.get("GLIBC_TUNABLES", ""):
        return ""
    return "huge pages are off; with GLIBC_TUNABLES=glibc.malloc.hugetlb=1 in the environment a step is a fifth faster"


def _batches(run: Run, step: int):
    """This process's stream of training batches from a step on."""
    from cbalign.data.pipeline import train_batches

    data, split = run.config.data, run.train_split
    return train_batches(
        split.records,
        split.columns,
        seed=run.config.seed,
        start_step=step,
        global_batch=run.config.train.batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        image_size=data.image_size,
        scale=data.crop_scale,
        second_view=run.task.second_view,
        threads=data.threads or None,
        max_bad_share=data.max_bad_share,
        flip=data.flip,
        rand_augment=data.rand_augment,
        color=data.color,
    )


def state_factory(task: Task, config: Any, *, steps_per_epoch: int):
    """How to make the state before the first step.

    Returns:
      (function () -> TrainState, optimizer, learning-rate schedule); `jax.eval_shape` of the function gives shapes
      without memory.
    """
    root, o = jax.random.key(config.seed), config.optimizer
    shapes = jax.eval_shape(lambda: task.init_params(jax.random.fold_in(root, 0)))
    optimizer, learning_rate = build_optimizer(
        shapes,
        schedule=o.schedule,
        learning_rate=o.learning_rate,
        final_learning_rate=o.final_learning_rate,
        warmup_learning_rate=o.warmup_learning_rate,
        warmup_steps=o.warmup_steps,
        steps=config.train.steps,
        steps_per_epoch=steps_per_epoch,
        groups=o.groups,
        weight_decay=o.weight_decay,
        b1=o.b1,
        b2=o.b2,
        eps=o.eps,
        clip_norm=o.clip_norm,
    )

    def make() -> TrainState:
        params = task.init_params(jax.random.fold_in(root, 0))
        return init_state(
            params,
            teacher=task.teacher_params(params),
            optimizer=optimizer,
            rng=jax.random.fold_in(root, 1),
            seed=config.seed,
            queue_size=task.queue_size,
            embed_dim=config.model.embed_dim,
        )

    return make, optimizer, learning_rate


def step_without_data(config: Any, *, device_count: int):
    """The training step of a config for measurements and plans, which read no data set and no vocabulary.

    Args:
      config: from `load_config`.
      device_count: devices it is to run on.

    Returns:
      (task, () -> TrainState, one device's step).
    """
    task_class(config).check(config, devices=device_count)
    task = task_without_data(config)
    config = task.config
    make_state, optimizer, learning_rate = state_factory(task, config, steps_per_epoch=_STEPS_PER_EPOCH)
    return task, make_state, bind_step(task, config, optimizer=optimizer, learning_rate=learning_rate)


def task_without_data(config: Any) -> Task:
    """The task of a config that reads no data set and no vocabulary, as for `step_without_data`."""
    config = resolve_epochs(config, steps_per_epoch=_STEPS_PER_EPOCH)
    tokens = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4, "vocab_size": config.data.vocabulary_size}
    return task_class(config)(config, tokens=tokens)


def bind_step(task: Task, config: Any, *, optimizer, learning_rate):
    """One device's training step of a task: (state, batch) -> (state, metrics)."""
    return functools.partial(
        train_step,
        value_and_grad=task.value_and_grad,
        optimizer=optimizer,
        learning_rate=learning_rate,
        momentum=config.teacher.momentum,
        freeze_code_steps=config.codebook.freeze_steps,
        gradient_dtype=config.train.gradient_dtype,
    )
