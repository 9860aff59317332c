"""The single training loop: runs any task, resumes, logs, evaluates, checkpoints, and stops when told to."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from cbalign.config_checks import QUEUE_TASKS
from cbalign.errors import DivergedError, UserError
from cbalign.distributed import devices
from cbalign.training.checkpoints import Checkpoints
from cbalign.training.epoch_means import line_metrics, split_by_epoch
from cbalign.training.optimizer import adamw, albef_staircase, group_table, warmup_cosine
from cbalign.distributed.processes import StopSignals
from cbalign.runs.initialize import parameter_table, start_run
from cbalign.training.state import TrainState, init_state
from cbalign.training.step import gradient_of, train_step
from cbalign.training.run_log import RunWriter


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
      step: finished steps.
      interrupted_by: name of the signal that stopped it, or "".
      results: the last evaluation, {split: result}.
    """

    step: int
    interrupted_by: str
    results: dict


def build_optimizer(config, params, *, steps_per_epoch: int):
    """The optimizer and learning-rate schedule of a config; `params` may be shapes."""
    o = config.optimizer
    common = dict(peak=o.learning_rate, final=o.final_learning_rate, start=o.warmup_learning_rate,
                  warmup_steps=o.warmup_steps)
    if o.schedule == "albef":
        epochs = max(1, round(config.train.steps / steps_per_epoch))
        schedule = albef_staircase(**common, steps_per_epoch=steps_per_epoch, epochs=epochs)
    else:
        schedule = warmup_cosine(**common, steps=config.train.steps)
    optimizer = adamw(params, schedule, groups=o.groups, weight_decay=o.weight_decay, b1=o.b1, b2=o.b2, eps=o.eps,
                      clip_norm=o.clip_norm)
    return optimizer, schedule


def state_factory(task, config, *, steps_per_epoch: int):
    """How to make the state before the first step.

    Returns:
      (function () -> TrainState, optimizer, schedule); `jax.eval_shape` of the function gives shapes without memory.
    """
    root = jax.random.key(config.seed)
    shapes = jax.eval_shape(lambda: task.init_params(jax.random.fold_in(root, 0)))
    optimizer, schedule = build_optimizer(config, shapes, steps_per_epoch=steps_per_epoch)

    def make() -> TrainState:
        params = task.init_params(jax.random.fold_in(root, 0))
        return init_state(
            params, teacher=task.teacher_params(params), optimizer=optimizer, rng=jax.random.fold_in(root, 1),
            seed=config.seed, queue_size=config.queue.size if config.task in QUEUE_TASKS else 0,
            embed_dim=config.model.embed_dim,
        )

    return make, optimizer, schedule


def bind_step(task, config, *, optimizer, schedule):
    """One device's training step of a task: (state, batch) -> (state, metrics)."""
    return functools.partial(
        train_step, gradient=gradient_of(task), optimizer=optimizer, learning_rate=schedule,
        momentum=config.teacher.momentum, freeze_code_steps=config.codebook.freeze_steps,
    )


def compile_step(task, config, *, optimizer, schedule):
    """The training step of a task mapped over all devices: (state, fed batch) -> (state, metrics)."""
    return devices.map_step(bind_step(task, config, optimizer=optimizer, schedule=schedule))


def check_devices(config, *, devices: int | None = None) -> None:
    """Raises UserError where the batch does not divide over devices and micro-batches, or a group of negatives is cut.

    Args:
      config: checked.
      devices: how many; those of this run by default.
    """
    devices, batch = devices or jax.device_count(), config.train.batch_size
    if batch % devices:
        raise UserError(f"train.batch_size={batch} does not divide over {devices} devices; use "
                        f"{max(1, round(batch / devices)) * devices}")
    local, parts = batch // devices, config.train.microbatches
    if local % parts:
        raise UserError(f"train.microbatches={parts} does not divide the {local} pairs of a device")
    if config.loss_weights.itm and config.task in QUEUE_TASKS:
        if local < 2:
            raise UserError(f"train.batch_size={batch} leaves {local} pair on each of {devices} devices; matching "
                            f"needs at least 2 (train.batch_size={2 * devices})")
        group = min(config.itm.group_size, local)
        if local % group:
            raise UserError(f"itm.group_size={group} does not divide the {local} pairs of a device")
        if (local // parts) % group:
            raise UserError(f"train.microbatches={parts} cuts the {local} pairs of a device into parts of "
                            f"{local // parts}, which do not hold whole groups of itm.group_size={group}; use fewer "
                            f"micro-batches, or smaller groups")


def run(
    task,
    config,
    *,
    workdir,
    batches: Callable[[int], Iterator[dict]],
    steps_per_epoch: int,
    evaluate: Callable[[Any, int], dict] | None = None,
    load_weights: Callable[[TrainState], TrainState] | None = None,
) -> Outcome:
    """Trains to `config.train.steps`, from where `start_run` finds a start.

    Args:
      task: see `cbalign.tasks`.
      config: checked, with durations in steps.
      workdir: folder of the run; `checkpoints/`, `metrics.jsonl`, `train.log`, `tensorboard/` are written there.
      batches: step -> endless iterator of this process's batches from that step on.
      steps_per_epoch: steps in one pass over the training data.
      evaluate: (state, step) -> {split: result}, or None. `config.eval.best_split` names "SPLIT/METRIC" in it.
      load_weights: needed where `config.init.weights` names some, see `start_run`.

    Raises:
      UserError: the batch does not fit the devices.
      DivergedError: a loss that is not finite; the last good checkpoint is kept.
    """
    check_devices(config)
    make_state, optimizer, schedule = state_factory(task, config, steps_per_epoch=steps_per_epoch)
    with Checkpoints(f"{workdir}/checkpoints", keep=config.train.keep) as checkpoints, StopSignals() as signals:
        begin = start_run(make_state, checkpoints, checkpoint=config.init.checkpoint, weights=config.init.weights,
                          load_weights=load_weights, steps=config.train.steps, seed=config.seed)
        start, state = begin.step, begin.state
        writer = RunWriter(workdir, start_step=start, steps=config.train.steps, steps_per_epoch=steps_per_epoch,
                           active=jax.process_index() == 0)
        try:
            writer.log(begin.origin)
            writer.log(f"{jax.device_count()} {jax.devices()[0].platform} device(s), {jax.process_count()} process(es)")
            writer.log(parameter_table(devices.fetch(state.params), scratch=begin.scratch))
            writer.log(group_table(state.params, config.optimizer.groups))
            writer.log("chance levels: " + ", ".join(f"{k} {v:.3f}" for k, v in task.chance_levels().items()))
            loop = _Loop(task, config, checkpoints, writer, signals, evaluate)
            step = compile_step(task, config, optimizer=optimizer, schedule=schedule)
            return loop.train(state, start, step, batches, steps_per_epoch)
        finally:
            writer.close()


@dataclasses.dataclass
class _Loop:
    """The loop proper, with what it talks to."""

    task: Any
    config: Any
    checkpoints: Checkpoints
    writer: RunWriter
    signals: StopSignals
    evaluate: Callable | None

    def train(self, state, start, train_step, batches, steps_per_epoch) -> Outcome:
        train, results = self.config.train, {}
        pending, started, logged = [], time.monotonic(), start
        stream, replaced = batches(start) if start < train.steps else iter(()), []
        for step in range(start + 1, train.steps + 1):
            batch = next(stream)
            replaced.append(np.sum(batch.pop("replaced", 0)))  # of the host's concern alone
            state, metrics = train_step(state, devices.feed(batch))
            if devices.must_wait() or step == start + 1:
                jax.block_until_ready(metrics)
            if step == start + 1:
                # Rates are told without the compilation.
                self.writer.log(f"first step after {time.monotonic() - started:.0f} s of compilation")
                started, logged = time.monotonic(), step
            pending.append(metrics)
            self.writer.advance(step)
            last, stop = step == train.steps, self.signals.agreed(step)
            evaluating = self.evaluate and (last or (train.eval_steps and step % train.eval_steps == 0))
            saving = last or stop or evaluating or step % train.checkpoint_steps == 0
            # What is saved must be known to be finite, so metrics are looked at before every save too.
            if saving or step % train.log_steps == 0:
                jax.block_until_ready(metrics)  # or the time would be that of handing the steps over
                self._log(step, pending, replaced, time.monotonic() - started, step - logged, steps_per_epoch)
                pending, replaced, started, logged = [], [], time.monotonic(), step
            if evaluating and not stop:
                results = self._evaluate(state, step)
            if saving:
                self.checkpoints.save(step, state, metric=self._best_metric(results) if evaluating else None)
                started = time.monotonic()
            if stop:
                self.checkpoints.wait()
                self.writer.log(f"{self.signals.caught}: saved step {step}; start again to go on from there")
                return Outcome(step, self.signals.caught, results)
        if start >= train.steps:
            self.writer.log(f"all {train.steps} steps are done")
        self.checkpoints.wait()
        return Outcome(train.steps, "", results)

    def _log(self, step, pending, replaced, seconds, steps, steps_per_epoch) -> None:
        """Writes means over the steps since the last line, cut at the end of an epoch; stops the run at the first loss
        that is not finite."""
        replaced = devices.sum_over_processes(np.asarray(replaced, np.int64))
        rows = [{**devices.fetch(metrics), "replaced": count} for metrics, count in zip(pending, replaced)]
        for i, row in enumerate(rows):
            if not np.isfinite(row["loss"]):
                self._stop_not_finite(step - len(rows) + 1 + i, row)
        # Nothing is known of the rate when the first step, which compiles, is all there is.
        pairs = self.config.train.batch_size * steps / seconds if steps else float("nan")
        for last, part in split_by_epoch(rows, step, steps_per_epoch):
            line = {**line_metrics(part), "epoch": last / steps_per_epoch, "pairs_per_second": pairs}
            self.writer.write_training(last, line)
        means = line_metrics(rows)
        self.writer.advance(step, means["loss"])
        shown = [name for name in ("loss", "ica", "ot", "i2p", "t2p", "itm", "mlm", "temperature") if name in means]
        line = f"step {step}/{self.config.train.steps}  " + "  ".join(f"{name} {means[name]:.3f}" for name in shown)
        if steps:
            left = (self.config.train.steps - step) * self.config.train.batch_size / pairs
            line += f"  {pairs:.0f} pairs/s  {left / 60:.1f} min left"
        self.writer.log(line)

    def _stop_not_finite(self, step, row) -> None:
        terms = ", ".join(f"{name} {float(value):.4g}" for name, value in row.items())
        self.checkpoints.wait()
        good = self.checkpoints.latest_step()
        kept = f"the last good checkpoint is {self.checkpoints.directory / str(good)}" if good else "no checkpoint yet"
        self.writer.log(f"loss is not finite at step {step}: {terms}")
        raise DivergedError(f"the loss is not finite at step {step} ({terms}); {kept}. A lower "
                            "optimizer.learning_rate or optimizer.clip_norm=1.0 often helps")

    def _evaluate(self, state, step) -> dict:
        results = self.evaluate(state, step)
        flat = {f"{split}/{kind}/{name}": value for split, result in results.items()
                for kind, values in result.items() if isinstance(values, dict)
                for name, value in values.items() if isinstance(value, float)}
        self.writer.write(step, flat)
        for split, result in results.items():
            scores = "  ".join(f"{name} {value:.1f}" for name, value in headline(result).items() if value is not None)
            self.writer.log(f"step {step}  {split}  {scores}")
        return results

    def _best_metric(self, results) -> float | None:
        """The mean of the headline figures of `config.eval.best_split`."""
        if not self.config.eval.best_split:
            return None
        split = self.config.eval.best_split
        return float(np.mean(list(headline(results[split]).values())))


def headline(result: dict) -> dict:
    """The figures of an evaluation by which runs are compared: recalls by one of the scores, or the accuracy."""
    if "contrastive" in result:
        return result[result.get("headline", "contrastive")]
    return {"accuracy": result["accuracy"]["overall"]}
