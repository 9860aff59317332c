"""What a run needs on a topology: memory, time and chip-hours of its training and of its evaluations."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from cbalign.evaluation.calls import SplitSize
from cbalign.plan.ahead import Compiled, Compiler
from cbalign.plan.cost import SECONDS_PER_DAY, Cost, Time, cost, duration, training_steps
from cbalign.plan.data_sizes import split_size
from cbalign.runs.train import task_without_data


@dataclasses.dataclass(frozen=True)
class EvaluationPlan:
    """One evaluation.

    Attributes:
      name: of the split.
      size: of it.
      seconds: of the devices' work; reading images and sorting scores on the host are not included.
      peak_bytes: per device, parameters included.
      calls: [{"name", "count", "seconds" of one, "share_of_peak", "basis"}].
    """

    name: str
    size: SplitSize
    seconds: float
    peak_bytes: int
    calls: list[dict]


@dataclasses.dataclass(frozen=True)
class TrainingPlan:
    """Training without its evaluations.

    Attributes:
      compiled: the step.
      time: of one step.
      cost: of all steps.
      cached: whether the step was compiled earlier.
    """

    compiled: Compiled
    time: Time
    cost: Cost
    cached: bool


def plan_training(config: Any, compiler: Compiler, *, samples: int, utilisation: float | None = None) -> TrainingPlan:
    """Compiles the step of a config and prices all steps of its run; `samples` are those of an epoch."""
    compiled, cached = compiler.step(config)
    return price_training(config, compiler, compiled, samples=samples, utilisation=utilisation, cached=cached)


def price_training(
    config: Any, compiler: Compiler, compiled: Compiled, *, samples: int, utilisation: float | None, cached: bool
) -> TrainingPlan:
    """Prices all steps of a run whose step is compiled."""
    topology = compiler.topology
    time = duration(compiled, topology, utilisation=utilisation)
    return TrainingPlan(compiled, time, cost(config, topology, compiled, time, pairs_per_epoch=samples), cached)


def plan_evaluation(
    config: Any,
    compiler: Compiler,
    size: SplitSize,
    *,
    name: str,
    quick: bool = False,
    utilisation: float | None = None,
) -> EvaluationPlan | None:
    """Compiles the functions an evaluation calls, each for one device with its share of the rows.

    Args:
      config: that evaluates; see `cbalign.runs.evaluate.merged_settings` for a protocol's.
      compiler: for the topology.
      size: of the split.
      name: of the split.
      quick: as in training, see `Task.evaluate`.
      utilisation: see `cbalign.plan.cost.duration`.

    Returns:
      None for a task that does not say what its evaluation calls.
    """
    task, topology = task_without_data(config), compiler.topology
    params = jax.eval_shape(task.init_params, jax.random.key(0))
    seconds, peak, calls = 0.0, 0, []
    for call in task.evaluation_calls(size, devices=topology.local_devices, quick=quick):
        share = topology.local_devices if call.spread else 1
        rows = jax.tree.map(lambda x, share=share: _share(x, share), call.rows)
        what = f"evaluation of {config.task}: {call.name}"
        compiled, _ = compiler.call(call.function, (params, *call.whole, *rows), what)
        time = duration(compiled, topology, utilisation=utilisation)
        count = -(-call.count * topology.local_devices // topology.devices) if call.shared else call.count
        seconds += count * time.seconds
        peak = max(peak, compiled.peak_bytes)
        calls.append(
            {
                "name": call.name,
                "count": count,
                "seconds": time.seconds,
                "share_of_peak": time.share_of_peak,
                "basis": time.basis,
            }
        )
    return EvaluationPlan(name, size, seconds, peak, calls) if calls else None


def _share(x, devices: int):
    return jax.ShapeDtypeStruct((-(-x.shape[0] // devices), *x.shape[1:]), x.dtype) if x.shape else x


@dataclasses.dataclass(frozen=True)
class RunPlan:
    """A run: training, the evaluations during it, and those after it.

    Attributes:
      training: None for a row that only evaluates.
      during: (how often, evaluation), one for each split.
      after: evaluations of the finished run.
      unknown: evaluations left out because the size of the split, or what it calls, is not known.
    """

    training: TrainingPlan | None
    during: tuple[tuple[int, EvaluationPlan], ...]
    after: tuple[EvaluationPlan, ...]
    unknown: tuple[str, ...]

    @property
    def training_days(self) -> float:
        """Days of the steps alone."""
        return self.training.cost.days if self.training else 0.0

    @property
    def evaluation_days(self) -> float:
        """Days of all evaluations."""
        seconds = sum(count * one.seconds for count, one in self.during) + sum(one.seconds for one in self.after)
        return seconds / SECONDS_PER_DAY

    @property
    def days(self) -> float:
        """Days of both."""
        return self.training_days + self.evaluation_days

    @property
    def peak_bytes(self) -> int:
        """Memory per device: of the step, of an evaluation beside the training state, of an evaluation alone."""
        peaks = [one.peak_bytes for one in self.after]
        if self.training:
            state = self.training.compiled.argument_bytes or 0
            peaks += [self.training.compiled.peak_bytes, *(state + one.peak_bytes for _, one in self.during)]
        return max(peaks, default=0)


def plan_run(
    config: Any,
    compiler: Compiler,
    *,
    training: TrainingPlan | None,
    samples: int,
    after: tuple[tuple[Any, str, str], ...] = (),
    utilisation: float | None = None,
) -> RunPlan:
    """The plan of a run whose training is priced.

    Args:
      config: of the run.
      compiler: for the topology.
      training: from `plan_training`; None for a run that is not trained.
      samples: of an epoch.
      after: evaluations of the finished run: (config that evaluates, data set, split).
      utilisation: see `cbalign.plan.cost.duration`.
    """
    unknown = []

    def evaluated(config, data, split, quick):
        size, name = split_size(data, split), f"{data} {split}"
        found = size and plan_evaluation(config, compiler, size, name=name, quick=quick, utilisation=utilisation)
        if not found:
            unknown.append(name)
        return [found] if found else []

    during = []
    if training:
        steps = training_steps(config, pairs_per_epoch=samples)
        count = -(-steps // config.train.eval_steps) if config.train.eval_steps else 1
        for split in config.eval.splits:
            during += [(count, found) for found in evaluated(config, config.data.name, split, True)]
    ended = [found for settings, data, split in after for found in evaluated(settings, data, split, False)]
    return RunPlan(training, tuple(during), tuple(ended), tuple(unknown))
