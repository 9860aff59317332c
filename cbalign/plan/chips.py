"""The chips that can be planned for, and the names of topologies.

Peak throughput is for dense bfloat16 matrix products on one chip, as published by the vendors:
  TPUs   cloud.google.com/tpu/docs, the page of each version, "Peak compute per chip (bf16)" and "HBM capacity"
  GPUs   the data sheets of NVIDIA's A100 80GB, H100 SXM and H200 SXM, "BFLOAT16 Tensor Core" without sparsity
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
      devices: JAX devices per chip (on v2 and v3 each of the two cores is a device).
      cores: units per chip that the number in a name such as v4-32 counts.
      dimensions: dimensions of the TPU mesh; 0 for a GPU.
    """

    name: str
    memory_bytes: int
    peak_flops: float
    devices: int = 1
    cores: int = 1
    dimensions: int = 0

    @property
    def is_tpu(self) -> bool:
        """Whether this is a TPU, planned with the TPU compiler."""
        return self.dimensions > 0


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v2", 16 * GIB, 46e12, devices=2, cores=2, dimensions=2),
        Chip("v3", 32 * GIB, 123e12, devices=2, cores=2, dimensions=2),
        Chip("v4", 32 * GIB, 275e12, cores=2, dimensions=3),
        Chip("v5e", 16 * GIB, 197e12, dimensions=2),
        Chip("v5p", 95 * GIB, 459e12, cores=2, dimensions=3),
        Chip("v6e", 32 * GIB, 918e12, dimensions=2),
        Chip("A100", 80 * GB, 312e12),
        Chip("H100", 80 * GB, 989e12),
        Chip("H200", 141 * GB, 989e12),
    )
}

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
        """Peak FLOP/s per device."""
        return self.chip.peak_flops / self.chip.devices

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
