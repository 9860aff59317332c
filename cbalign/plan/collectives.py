"""Collectives of a compiled program: kind, group, bytes, and whether they run beside other work."""

import collections
import re

from cbalign.plan.hlo import Instruction, Module

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")

_GROUPS = re.compile(r"replica_groups=(?:\[\d+,(\d+)\]|\{\{([\d,]*)\})")


def collectives(module: Module) -> list[dict]:
    """Lists the collectives that one execution of a program runs.

    Args:
      module: an optimised program, from `hlo.parse(compiled.as_text())`.

    Returns:
      [{"kind": one of KINDS, "devices": group size, "bytes": size of the full array on one device (the output of an
      all-gather or all-reduce, the input of a reduce-scatter), "count": number of executions, "asynchronous": whether
      other work may run beside it}], largest first. Groups of one device are omitted. A loop counts once per iteration
      if its trip count is known, otherwise once.
    """
    counts = collections.Counter()
    beside = _asynchronous_computations(module)
    for name, instructions in module.computations.items():
        for instruction in instructions.values():
            kind = instruction.opcode.removesuffix("-start")
            if kind in KINDS:
                devices = group_size(kind, instruction)
                started = instruction.opcode.endswith("-start") or name in beside
                counts[kind, devices, payload(kind, instruction), started] += module.executions[name]
    found = [
        {"kind": kind, "devices": devices, "bytes": size, "count": count, "asynchronous": started}
        for (kind, devices, size, started), count in counts.items()
        if count and devices > 1
    ]
    return sorted(found, key=lambda x: (-x["bytes"] * x["count"], x["kind"]))


def _asynchronous_computations(module: Module) -> set[str]:
    """Computations that an `async-start` runs."""
    return {
        other
        for instructions in module.computations.values()
        for instruction in instructions.values()
        if instruction.opcode == "async-start"
        for _, other in instruction.called
    }


def group_size(kind: str, instruction: Instruction) -> int:
    """Devices that take part in one group of a collective."""
    if kind == "collective-permute":  # one sender, one receiver
        return 2
    groups = _GROUPS.search(instruction.attributes)
    return (int(groups[1]) if groups[1] else groups[2].count(",") + 1) if groups else 1


def payload(kind: str, instruction: Instruction) -> int:
    """Bytes of the full array on one device; an asynchronous start lists both operands and results."""
    started = instruction.opcode.endswith("-start")
    sizes = [array.bytes for array in instruction.arrays]
    if started and kind == "all-gather":
        sizes = sizes[len(sizes) // 2 :]
    elif started and kind == "collective-permute":
        sizes = sizes[1:2]
    return sum(sizes) * (group_size(kind, instruction) if kind == "reduce-scatter" else 1)


def sent_bytes(module: Module, kind: str, instruction: Instruction) -> float:
    """Bytes each device sends in a ring: (n - 1) / n of the full array, twice for an all-reduce."""
    if instruction.opcode.removesuffix("-start") != kind:  # it wraps the collective
        inner = [x for _, other in instruction.called for x in module.computations[other].values()]
        instruction = next(x for x in inner if x.opcode.removesuffix("-start") == kind)
    devices, size = group_size(kind, instruction), payload(kind, instruction)
    if kind in ("collective-permute", "collective-broadcast"):
        return size
    share = (devices - 1) / devices
    return size * share * (2 if kind == "all-reduce" else 1)
