"""Time and chip-hours of a training, from its FLOPs and a chip's peak. Plain arithmetic on what the compiler found."""

import dataclasses

from cbalign.plan.ahead import Compiled
from cbalign.plan.chips import Topology

_SECONDS_PER_DAY = 86_400


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a training takes on a topology.

    Attributes:
      steps: of the whole training.
      flops_per_pair: of the matrix products of a step, forward and backward, for one pair.
      step_seconds: a step at the assumed share of the peak.
      pairs_per_second: over all devices.
      days: of the whole training, evaluations and restarts left out.
      chip_hours: chips times hours.
    """

    steps: int
    flops_per_pair: float
    step_seconds: float
    pairs_per_second: float
    days: float
    chip_hours: float


def training_steps(config, *, pairs_per_epoch: int) -> int:
    """Steps of a whole training; an epoch drops its last incomplete batch, as the input pipeline does."""
    return config.train.steps or config.train.epochs * (pairs_per_epoch // config.train.batch_size)


def cost(config, topology: Topology, compiled: Compiled, *, utilisation: float, pairs_per_epoch: int) -> Cost:
    """Cost of the training of a config.

    Args:
      config: checked.
      topology: what it runs on.
      compiled: of `compile_step` for it.
      utilisation: share of the chips' peak that the matrix products reach.
      pairs_per_epoch: of the data.
    """
    batch, steps = config.train.batch_size, training_steps(config, pairs_per_epoch=pairs_per_epoch)
    step_seconds = compiled.flops / (topology.peak_flops * utilisation)
    seconds = steps * step_seconds
    return Cost(
        steps=steps, flops_per_pair=compiled.flops * topology.devices / batch, step_seconds=step_seconds,
        pairs_per_second=batch / step_seconds, days=seconds / _SECONDS_PER_DAY,
        chip_hours=topology.chips * seconds / 3600,
    )
