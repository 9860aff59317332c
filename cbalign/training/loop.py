"""The single training loop: runs any task, resumes, logs, evaluates, checkpoints, and stops when told to."""

import dataclasses
import functools
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from cbalign.errors import DivergedError, UserError
from cbalign.training import parallel
from cbalign.training.checkpoint import Checkpoints
from cbalign.training.epochs import line_metrics, split_by_epoch
from cbalign.training.optimizer import adamw, albef_staircase, group_table, warmup_cosine
from cbalign.training.state import TrainState, init_state
from cbalign.training.step import train_step
from cbalign.training.writer import RunWriter


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
            queue_size=config.queue.size, embed_dim=config.model.embed_dim,
        )

    return make, optimizer, schedule


def bind_step(task, config, *, optimizer, schedule):
    """One device's training step of a task: (state, batch) -> (state, metrics)."""
    return functools.partial(
        train_step, loss=task.loss, optimizer=optimizer, learning_rate=schedule, seed=config.seed,
        momentum=config.teacher.momentum, freeze_code_steps=config.codebook.freeze_steps,
    )


def compile_step(task, config, *, optimizer, schedule):
    """The training step of a task mapped over all devices: (state, fed batch) -> (state, metrics)."""
    return parallel.map_step(bind_step(task, config, optimizer=optimizer, schedule=schedule))


def check_devices(config) -> None:
    """Raises UserError where the batch does not divide over the devices, or leaves a group without a negative."""
    devices, batch = jax.device_count(), config.train.batch_size
    if batch % devices:
        raise UserError(f"train.batch_size={batch} does not divide over {devices} devices; use "
                        f"{max(1, round(batch / devices)) * devices}")
    if config.loss_weights.itm:
        local = batch // devices
        if local < 2:
            raise UserError(f"train.batch_size={batch} leaves {local} pair on each of {devices} devices; matching "
                            f"needs at least 2 (train.batch_size={2 * devices})")
        group = min(config.itm.group_size, local)
        if local % group:
            raise UserError(f"itm.group_size={group} does not divide the {local} pairs of a device")


def parameter_table(params) -> str:
    """One line a module: parameters and root-mean-square of their values, to see at a glance what was loaded."""
    lines = [f"{'module':<24}{'parameters':>12}{'rms':>10}"]
    total = 0
    for name, tree in params.items():
        leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(tree)]
        count = sum(x.size for x in leaves)
        total += count
        lines.append(f"{name:<24}{count:>12,}{(sum((x**2).sum() for x in leaves) / count) ** 0.5:>10.4f}")
    return "\n".join([*lines, f"{'all':<24}{total:>12,}"])


class _Signals:
    """Remembers SIGTERM and SIGINT, so that the loop can save and stop between two steps."""

    def __init__(self):
        self.caught = ""
        self._before = {}

    def __enter__(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._before[number] = signal.signal(number, self._handle)
            except ValueError:  # not the main thread: the caller keeps its own handling
                break
        return self

    def _handle(self, number, frame):
        if self.caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.caught = signal.Signals(number).name

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)


def run(
    task,
    config,
    *,
    workdir,
    batches: Callable[[int], Iterator[dict]],
    steps_per_epoch: int,
    evaluate: Callable[[Any, int], dict] | None = None,
) -> Outcome:
    """Trains to `config.train.steps`, or on from the newest checkpoint of the workdir.

    Args:
      task: see `cbalign.tasks`.
      config: checked, with durations in steps.
      workdir: folder of the run; `checkpoints/`, `metrics.jsonl`, `train.log`, `tensorboard/` are written there.
      batches: step -> endless iterator of this process's batches from that step on.
      steps_per_epoch: steps in one pass over the training data.
      evaluate: (state, step) -> {split: result}, or None. `config.eval.best_split` names "SPLIT/METRIC" in it.

    Raises:
      UserError: the batch does not fit the devices.
      DivergedError: a loss that is not finite; the last good checkpoint is kept.
    """
    check_devices(config)
    make_state, optimizer, schedule = state_factory(task, config, steps_per_epoch=steps_per_epoch)
    with Checkpoints(f"{workdir}/checkpoints", keep=config.train.keep) as checkpoints, _Signals() as signals:
        # Where a run starts from: 1. its own newest checkpoint, 2. scratch.
        start = checkpoints.latest_step() or 0
        if start:
            state = checkpoints.restore(jax.eval_shape(make_state))
        else:
            state = parallel.replicate(make_state())
        writer = RunWriter(workdir, start_step=start, steps=config.train.steps, steps_per_epoch=steps_per_epoch,
                           active=jax.process_index() == 0)
        try:
            writer.log(f"start: {f'own checkpoint of step {start}' if start else 'from scratch'}; "
                       f"{jax.device_count()} {jax.devices()[0].platform} device(s), {jax.process_count()} process(es)")
            writer.log(parameter_table(parallel.fetch(state.params)))
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
    signals: _Signals
    evaluate: Callable | None

    def train(self, state, start, train_step, batches, steps_per_epoch) -> Outcome:
        train, results = self.config.train, {}
        pending, started, logged = [], time.monotonic(), start
        stream = map(parallel.feed, batches(start)) if start < train.steps else iter(())
        for step in range(start + 1, train.steps + 1):
            state, metrics = train_step(state, next(stream))
            if parallel.must_wait() or step == start + 1:
                jax.block_until_ready(metrics)
            if step == start + 1:
                # Rates are told without the compilation.
                self.writer.log(f"first step after {time.monotonic() - started:.0f} s of compilation")
                started, logged = time.monotonic(), step
            pending.append(metrics)
            self.writer.advance(step)
            last, stop = step == train.steps, bool(self.signals.caught)
            evaluating = self.evaluate and (last or (train.eval_steps and step % train.eval_steps == 0))
            saving = last or stop or evaluating or step % train.checkpoint_steps == 0
            # What is saved must be known to be finite, so metrics are looked at before every save too.
            if saving or step % train.log_steps == 0:
                jax.block_until_ready(metrics)  # or the time would be that of handing the steps over
                self._log(step, pending, time.monotonic() - started, step - logged, steps_per_epoch)
                pending, started, logged = [], time.monotonic(), step
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

    def _log(self, step, pending, seconds, steps, steps_per_epoch) -> None:
        """Writes means over the steps since the last line, cut at the end of an epoch; stops the run at the first loss
        that is not finite."""
        rows = [parallel.fetch(metrics) for metrics in pending]
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
            scores = "  ".join(f"{name} {value:.1f}" for name, value in result["contrastive"].items())
            self.writer.log(f"step {step}  {split}  {scores}")
        return results

    def _best_metric(self, results) -> float | None:
        """The value of `config.eval.best_split`: the mean recall of a split, by contrastive score."""
        if not self.config.eval.best_split:
            return None
        split = self.config.eval.best_split
        return float(np.mean(list(results[split]["contrastive"].values())))
