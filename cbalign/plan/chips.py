"""The chips that can be planned for, and the names of topologies.

Peak throughput is for dense matrix products on one chip, as published by the vendors:
  TPUs   cloud.google.com/tpu/docs, the page of each version: peak compute (bf16), HBM capacity and bandwidth,
         interchip interconnect. The clock is the peak divided by the multiply-adds of all matrix units in a cycle.
         A float32 product at full precision is six bfloat16 products.
  GPUs   the data sheets of NVIDIA's A100 80GB, H100 SXM and H200 SXM: BFLOAT16 Tensor Core without sparsity, FP32,
         memory bandwidth, NVLink (half of it, one direction)
"""

import dataclasses
import math
import re

from cbalign.errors import UserError

GIB = 2**30
GB = 10**9


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of chip.

    Attributes:
      name: the chip's name in a topology name.
      memory_bytes: memory per chip.
      peak_flops: peak FLOP/s per chip for dense bfloat16 matrix products.
      memory_bandwidth: bytes/s per chip.
      link_bandwidth: bytes/s that one link of the interconnect carries in one direction; of a GPU, all its links.
      clock_hz: cycles per second in which the TPU compiler counts; 0 for a GPU.
      float32_flops: peak FLOP/s per chip for float32 products of full precision.
      devices: JAX devices per chip (on v2 and v3 each of the two cores is a device).
      cores: units per chip that the number in a name such as v4-32 counts.
      dimensions: dimensions of the TPU mesh; 0 for a GPU.
    """

    name: str
    memory_bytes: int
    peak_flops: float
    memory_bandwidth: float
    link_bandwidth: float
    clock_hz: float = 0.0
    float32_flops: float = 0.0
    devices: int = 1
    cores: int = 1
    dimensions: int = 0

    @property
    def is_tpu(self) -> bool:
        """Whether this is a TPU, planned with the TPU compiler."""
        return self.dimensions > 0


def _tpu(name: str, memory: int, peak: float, bandwidth: float, link: float, clock: float, **counts: int) -> Chip:
    return Chip(name, memory * GIB, peak, bandwidth, link, clock, peak / 6, **counts)


CHIPS = {
    chip.name: chip
    for chip in (
        _tpu("v2", 16, 46e12, 700e9, 62e9, 0.70e9, devices=2, cores=2, dimensions=2),
        _tpu("v3", 32, 123e12, 900e9, 82e9, 0.94e9, devices=2, cores=2, dimensions=2),
        _tpu("v4", 32, 275e12, 1228e9, 50e9, 1.05e9, cores=2, dimensions=3),
        _tpu("v5e", 16, 197e12, 819e9, 50e9, 1.50e9, dimensions=2),
        _tpu("v5p", 95, 459e12, 2765e9, 100e9, 1.75e9, cores=2, dimensions=3),
        _tpu("v6e", 32, 918e12, 1640e9, 112e9, 1.75e9, dimensions=2),
        Chip("A100", 80 * GB, 312e12, 2039e9, 300e9, float32_flops=19.5e12),
        Chip("H100", 80 * GB, 989e12, 3350e9, 450e9, float32_flops=67e12),
        Chip("H200", 141 * GB, 989e12, 4800e9, 450e9, float32_flops=67e12),
    )
}

# Chips whose devices one process drives: TPU hosts of a pod, nodes of GPUs.
_CHIPS_PER_HOST = {True: 4, False: 8}
# Bytes/s a GPU reaches over the network between nodes of eight, assuming one 400 Gbit/s adapter for each GPU.
_NETWORK_BANDWIDTH = 50e9

# {dimensions: {number of chips: standard shape}}.
_SHAPES = {
    2: {
        1: "1x1",
        4: "2x2",
        8: "2x4",
        16: "4x4",
        32: "4x8",
        64: "8x8",
        128: "8x16",
        256: "16x16",
        512: "16x32",
        1024: "32x32",
    },
    3: {
        4: "2x2x1",
        8: "2x2x2",
        16: "2x2x4",
        32: "2x4x4",
        64: "4x4x4",
        128: "4x4x8",
        256: "4x8x8",
        512: "8x8x8",
        1024: "8x8x16",
        2048: "8x16x16",
    },
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A number of chips of one kind.

    Attributes:
      chip: kind of chip.
      chips: number of chips.
      shape: shape of the TPU mesh, such as "2x2x2"; "" for GPUs.
    """

    chip: Chip
    chips: int
    shape: str = ""

    @property
    def devices(self) -> int:
        """Number of JAX devices."""
        return self.chips * self.chip.devices

    @property
    def memory_bytes(self) -> int:
        """Memory per device, in bytes."""
        return self.chip.memory_bytes // self.chip.devices

    @property
    def peak_flops(self) -> float:
        """Peak FLOP/s per device for bfloat16 products."""
        return self.chip.peak_flops / self.chip.devices

    @property
    def float32_flops(self) -> float:
        """Peak FLOP/s per device for float32 products of full precision."""
        return self.chip.float32_flops / self.chip.devices

    @property
    def memory_bandwidth(self) -> float:
        """Bytes/s per device."""
        return self.chip.memory_bandwidth / self.chip.devices

    @property
    def local_devices(self) -> int:
        """JAX devices of one process, on which it evaluates."""
        most = _CHIPS_PER_HOST[self.chip.is_tpu]
        if self.chip.dimensions == 2 and self.chips == 2 * most and self.chip.devices == 1:
            most = self.chips  # eight v5e or v6e chips are one host
        return min(self.chips, most) * self.chip.devices

    @property
    def link_bandwidth(self) -> float:
        """Bytes/s that a chip sends to its neighbours in a collective over all chips.

        A ring along each axis of a TPU's mesh runs over one link, or both ways where the axis is closed: axes of 16
        in two dimensions; all axes in three dimensions if each is a multiple of 4.
        """
        if not self.chip.is_tpu:
            return self.chip.link_bandwidth if self.chips <= _CHIPS_PER_HOST[False] else _NETWORK_BANDWIDTH
        sides = [int(side) for side in self.shape.split("x")]
        cube = self.chip.dimensions == 3 and all(side % 4 == 0 for side in sides)
        links = sum(2 if cube or (self.chip.dimensions == 2 and side == 16) else 1 for side in sides if side > 1)
        return links * self.chip.link_bandwidth

    def __str__(self) -> str:
        return f"{self.chip.name}:{self.shape or self.chips}"


def parse_topology(text: str) -> Topology:
    """Parses "v4:2x2x2" (shape of a TPU mesh), "v4-16" (a Cloud TPU type) or "H200:8" (number of GPUs).

    Raises:
      UserError: the chip is unknown or does not come in this shape.
    """
    match = re.fullmatch(r"([A-Za-z0-9]+?)(litepod)?([:-])([0-9x]+)", text.strip())
    names = {name.lower(): name for name in CHIPS}
    name = names.get((match[1] + "e" if match[2] else match[1]).lower()) if match else None
    if name is None:
        raise UserError(
            f"--topology={text} is not CHIP:SHAPE or a type such as v4:2x2x2, v4-16, v5e:4x4 or H200:8; "
            f"chips are {', '.join(CHIPS)}"
        )
    chip, separator, size = CHIPS[name], match[3], match[4]
    if not re.fullmatch(r"[1-9][0-9]*(x[1-9][0-9]*)*", size):
        raise UserError(f"--topology={text}: {size} is not a valid shape")
    if not chip.is_tpu:
        if "x" in size:
            count = math.prod(map(int, size.split("x")))
            raise UserError(f"--topology={text}: GPUs have no mesh; write {name}:{count}")
        return Topology(chip, int(size))
    if separator == ":":
        sides = [int(side) for side in size.split("x")]
        if len(sides) != chip.dimensions:
            example = _SHAPES[chip.dimensions][16]
            raise UserError(
                f"--topology={text}: {name} has a mesh of {chip.dimensions} dimensions, as in {name}:{example}"
            )
        return Topology(chip, math.prod(sides), size)
    count = int(size) / chip.cores if "x" not in size else 0
    if count not in _SHAPES[chip.dimensions]:
        known = ", ".join(f"{name}-{chips * chip.cores}" for chips in _SHAPES[chip.dimensions])
        raise UserError(f"--topology={text}: no such type; there are {known}")
    return Topology(chip, int(count), _SHAPES[chip.dimensions][int(count)])
