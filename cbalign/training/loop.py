"""The training loop of every task: steps, logging, checkpoints, evaluations, and stopping on a signal."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from cbalign.distributed import devices
from cbalign.distributed.processes import StopSignals
from cbalign.errors import DivergedError
from cbalign.training.checkpoints import Checkpoints
from cbalign.training.epoch_means import line_metrics, split_by_epoch
from cbalign.training.run_log import RunLog

# Steps that may wait on the devices: enough to keep them busy, few enough that a signal is answered soon.
_STEPS_AHEAD = 2


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
      step: finished steps.
      interrupted_by: name of the signal that stopped the run, or "".
      results: the last evaluation, {split: result}.
    """

    step: int
    interrupted_by: str
    results: dict


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The run's length and intervals, in steps.

    Attributes:
      steps: total number of steps.
      steps_per_epoch: steps in one pass over the training data.
      log: interval between log lines.
      checkpoint: interval between checkpoints.
      evaluate: interval between evaluations; 0 evaluates only at the end.
    """

    steps: int
    steps_per_epoch: int
    log: int
    checkpoint: int
    evaluate: int = 0

    def evaluates(self, step: int) -> bool:
        """Whether the state after `step` is evaluated."""
        return step == self.steps or bool(self.evaluate and step and step % self.evaluate == 0)


@dataclasses.dataclass
class Loop:
    """The training loop and the objects it drives.

    Attributes:
      train_step: (state, fed batch) -> (state, metrics); compiled already, or on its first call.
      schedule: see `Schedule`.
      batch_size: global batch size, in records.
      checkpoints: checkpoints of the run.
      log: log of the run.
      signals: signals that stop the run.
      evaluate: state -> {split: result}, or None.
      headline: result -> {name: figure}, the figures of an evaluation that appear in the log line.
      best_split: the split whose mean headline figure selects the best checkpoint; "" for none.
      shown_metrics: metrics in the log line, in this order; absent ones are skipped.
    """

    train_step: Callable[[Any, dict], tuple[Any, dict]]
    schedule: Schedule
    batch_size: int
    checkpoints: Checkpoints
    log: RunLog
    signals: StopSignals
    evaluate: Callable[[Any], dict] | None
    headline: Callable[[dict], dict]
    best_split: str = ""
    shown_metrics: tuple[str, ...] = ("loss",)

    def run(self, state, start: int, batches: Callable[[int], Iterator[dict]]) -> Outcome:
        """Trains from step `start` to the end.

        Args:
          state: state after `start` steps.
          start: number of finished steps.
          batches: step -> infinite iterator over this process's batches, starting after that step.

        Raises:
          DivergedError: the loss is not finite; the last good checkpoint is kept.
        """
        schedule, results = self.schedule, self._missed_evaluation(state, start)
        pending, replaced, started, logged = [], [], time.monotonic(), start
        stream = batches(start) if start < schedule.steps else iter(())
        for step in range(start + 1, schedule.steps + 1):
            batch = next(stream)
            replaced.append(np.sum(batch.pop("replaced", 0)))  # host-only field
            state, metrics = self.train_step(state, devices.feed(batch))
            if devices.must_wait() or step == start + 1:
                jax.block_until_ready(metrics)
            if step == start + 1:
                # Throughput excludes compilation.
                self.log.log(f"first step after {time.monotonic() - started:.0f} s of compilation")
                started, logged = time.monotonic(), step
            pending.append(metrics)
            if len(pending) > _STEPS_AHEAD:
                jax.block_until_ready(pending[-1 - _STEPS_AHEAD])
            self.log.advance(step)
            stop, evaluating = self.signals.agreed(step), bool(self.evaluate and schedule.evaluates(step))
            saving = step == schedule.steps or stop or evaluating or step % schedule.checkpoint == 0
            # A non-finite state must never be saved, so metrics are also checked before every save.
            if saving or step % schedule.log == 0:
                jax.block_until_ready(metrics)  # otherwise only the dispatch would be timed
                self._log_metrics(step, pending, replaced, time.monotonic() - started, step - logged)
                pending, replaced, started, logged = [], [], time.monotonic(), step
            if saving:
                # Save before evaluating: a kill during a long evaluation then loses only the evaluation.
                self.checkpoints.save(step, state)
                started = time.monotonic()
            if stop:
                self.checkpoints.wait()
                self.log.log(f"{self.signals.caught}: saved step {step}; start the same command again to resume")
                return Outcome(step, self.signals.caught, results)
            if evaluating:
                results, started = self._evaluate(state, step), time.monotonic()
        if start >= schedule.steps:
            self.log.log(f"all {schedule.steps} steps are done")
        self.checkpoints.wait()
        return Outcome(schedule.steps, "", results)

    def _missed_evaluation(self, state, start: int) -> dict:
        """Runs the evaluation of the starting step if an interruption prevented it; {} if none is due."""
        due = self.evaluate and start and self.schedule.evaluates(start)
        if not due or start in self.checkpoints.evaluations or self.checkpoints.evaluated_by_older_version(start):
            return {}
        self.log.log(f"step {start} was saved but not evaluated; evaluating it now")
        return self._evaluate(state, start)

    def _log_metrics(self, step, pending, replaced, seconds, steps) -> None:
        """Logs means over the steps since the last line, split at epoch ends; raises on a non-finite loss."""
        replaced = devices.sum_over_processes(np.asarray(replaced, np.int64))
        rows = [{**devices.fetch(metrics), "replaced": count} for metrics, count in zip(pending, replaced, strict=True)]
        for i, row in enumerate(rows):
            if not np.isfinite(row["loss"]):
                self._stop_not_finite(step - len(rows) + 1 + i, row)
        # The throughput is unknown if the only step so far is the first one, which compiles.
        pairs = self.batch_size * steps / seconds if steps else float("nan")
        for last, part in split_by_epoch(rows, step, self.schedule.steps_per_epoch):
            line = {**line_metrics(part), "epoch": last / self.schedule.steps_per_epoch, "pairs_per_second": pairs}
            self.log.write_training(last, line)
        means = line_metrics(rows)
        self.log.advance(step, means["loss"])
        shown = [f"{name} {means[name]:.3f}" for name in self.shown_metrics if name in means]
        line = f"step {step}/{self.schedule.steps}  " + "  ".join(shown)
        if steps:
            left = (self.schedule.steps - step) * self.batch_size / pairs
            line += f"  {pairs:.0f} pairs/s  {left / 60:.1f} min left"
        self.log.log(line)
        if sum(replaced):
            self.log.log(f"step {step}: {sum(replaced)} samples had unreadable records and were replaced")

    def _stop_not_finite(self, step, row) -> None:
        terms = ", ".join(f"{name} {float(value):.4g}" for name, value in row.items())
        self.checkpoints.wait()
        good = self.checkpoints.latest_step()
        kept = f"the last good checkpoint is {self.checkpoints.directory / str(good)}" if good else "no checkpoint yet"
        self.log.log(f"loss is not finite at step {step}: {terms}")
        raise DivergedError(
            f"the loss is not finite at step {step} ({terms}); {kept}. A lower optimizer.learning_rate or "
            "optimizer.clip_norm=1.0 often helps"
        )

    def _evaluate(self, state, step) -> dict:
        assert self.evaluate is not None
        results = self.evaluate(state)
        flat = {
            f"{split}/{kind}/{name}": value
            for split, result in results.items()
            for kind, values in result.items()
            if isinstance(values, dict)
            for name, value in values.items()
            if isinstance(value, float)
        }
        self.log.write(step, flat)
        for split, result in results.items():
            figures = {name: value for name, value in self.headline(result).items() if value is not None}
            shown = "  ".join(f"{name} {value:.1f}" for name, value in figures.items())
            self.log.log(f"step {step}  {split}  {shown}")
        best = None
        if self.best_split:
            best = float(np.mean(list(self.headline(results[self.best_split]).values())))
        self.checkpoints.record_evaluation(step, best)
        return results
