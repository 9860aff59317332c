"""Time and chip-hours of programs and runs: the compiler's estimate, and what no estimate may go below."""

import dataclasses

from cbalign.plan.ahead import Compiled
from cbalign.plan.chips import Topology

SECONDS_PER_DAY = 86_400
# Share of the peak that matrix products are assumed to reach where no compiler estimates the time, as for GPUs.
UTILISATION = 0.4


@dataclasses.dataclass(frozen=True)
class Time:
    """How long one execution of a compiled program takes.

    Attributes:
      seconds: the estimate.
      basis: where it comes from, in words.
      matmul_floor: seconds of the matrix products at the chip's peak.
      memory_floor: seconds of the bytes at the memory's bandwidth: what the compiled program moves, or, where no
        compiler says it, the arguments and what linear layers read and write.
      share_of_peak: matmul_floor / seconds.
    """

    seconds: float
    basis: str
    matmul_floor: float
    memory_floor: float
    share_of_peak: float


def duration(compiled: Compiled, topology: Topology, *, utilisation: float | None = None) -> Time:
    """The time of one execution.

    Args:
      compiled: from `cbalign.plan.ahead.Compiler`.
      topology: it was compiled for.
      utilisation: assumed share of the peak; None takes the compiler's estimate where there is one.
    """
    exact, rounded = compiled.float32_flops, compiled.flops - compiled.float32_flops
    matmul = rounded / topology.peak_flops + exact / topology.float32_flops
    moved = compiled.dense_bytes + (compiled.argument_bytes or 0)
    if compiled.profile and utilisation is None:
        wanted, basis = compiled.profile["seconds"], "the compiler's estimate"
        moved = compiled.profile["bytes"]
    else:
        share = UTILISATION if utilisation is None else utilisation
        wanted, basis = matmul / share, f"assumed {share:.0%} of the peak"
        if compiled.profile:
            moved = compiled.profile["bytes"]
    memory = moved / topology.memory_bandwidth
    seconds = max(wanted, matmul, memory)
    if seconds > wanted:
        basis = "matrix products at peak" if seconds == matmul else "bytes at the memory's bandwidth"
    return Time(seconds, basis, matmul, memory, matmul / seconds if seconds else 0.0)


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cost of a training run on a topology.

    Attributes:
      steps: total number of steps.
      flops_per_pair: FLOPs of a step's matrix products, forward and backward, per pair.
      step_seconds: duration of a step.
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


def cost(config, topology: Topology, compiled: Compiled, time: Time, *, pairs_per_epoch: int) -> Cost:
    """Cost of training with a config.

    Args:
      config: a checked config.
      topology: hardware of the run.
      compiled: the step, compiled for that topology.
      time: of a step, from `duration`.
      pairs_per_epoch: number of samples in an epoch.
    """
    batch, steps = config.train.batch_size, training_steps(config, pairs_per_epoch=pairs_per_epoch)
    seconds = steps * time.seconds
    return Cost(
        steps=steps,
        flops_per_pair=compiled.flops * topology.devices / batch,
        step_seconds=time.seconds,
        pairs_per_second=batch / time.seconds,
        days=seconds / SECONDS_PER_DAY,
        chip_hours=topology.chips * seconds / 3600,
    )
