"""Estimates the time and chip-hours of a training run from its FLOPs and the chips' peak throughput."""

import dataclasses

from cbalign.plan.ahead import Compiled
from cbalign.plan.chips import Topology

_SECONDS_PER_DAY = 86_400


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cost of a training run on a topology.

    Attributes:
      steps: total number of steps.
      flops_per_pair: FLOPs of a step's matrix products, forward and backward, per pair.
      step_seconds: duration of a step at the assumed utilisation.
      pairs_per_second: throughput over all devices.
      days: duration of the run, excluding evaluations and restarts.
      chip_hours: number of chips times hours.
    """

    steps: int
    flops_per_pair: float
    step_seconds: float
    pairs_per_second: float
    days: float
    chip_hours: float


def training_steps(config, *, pairs_per_epoch: int) -> int:
    """Total steps of a run; the last incomplete batch of an epoch is dropped, as in the input pipeline."""
    return config.train.steps or config.train.epochs * (pairs_per_epoch // config.train.batch_size)


def cost(config, topology: Topology, compiled: Compiled, *, utilisation: float, pairs_per_epoch: int) -> Cost:
    """Cost of training with a config.

    Args:
      config: a checked config.
      topology: hardware of the run.
      compiled: result of `compile_step` for that topology.
      utilisation: fraction of the chips' peak that the matrix products reach.
      pairs_per_epoch: number of pairs in an epoch.
    """
    batch, steps = config.train.batch_size, training_steps(config, pairs_per_epoch=pairs_per_epoch)
    step_seconds = compiled.flops / (topology.peak_flops * utilisation)
    seconds = steps * step_seconds
    return Cost(
        steps=steps,
        flops_per_pair=compiled.flops * topology.devices / batch,
        step_seconds=step_seconds,
        pairs_per_second=batch / step_seconds,
        days=seconds / _SECONDS_PER_DAY,
        chip_hours=topology.chips * seconds / 3600,
    )
