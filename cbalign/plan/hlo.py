"""Collectives of a compiled program, read from its HLO text."""

import collections
import math
import re

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_INSTRUCTION = re.compile(rf"= (\(.*?\)|\S+) ({'|'.join(KINDS)})(-start)?\(")
_CALLED = re.compile(r"\b(body|calls|to_apply|branch_computations)=\{?((?:%?[\w.\-]+(?:, )?)+)")
_TURNS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_ARRAY = re.compile(r"\b(pred|token|[a-z]+(\d+)\w*)\[([\d,]*)\]")
_GROUPS = re.compile(r"replica_groups=(?:\[\d+,(\d+)\]|\{\{([\d,]*)\})")


def collectives(text: str) -> list[dict]:
    """Lists the collectives that one execution of a program runs.

    Args:
      text: text of an optimised HLO module, as from `compiled.as_text()`.

    Returns:
      [{"kind": one of KINDS, "devices": group size, "bytes": size of the full array on one device (the output of an
      all-gather or all-reduce, the input of a reduce-scatter), "count": number of executions}], largest first. Groups
      of one device are omitted. A loop counts once per iteration if the compiler knows its trip count, otherwise once.
    """
    computations = _computations(text)
    runs = _runs(computations)
    counts = collections.Counter()
    for name, lines in computations.items():
        for line in lines:
            match = _INSTRUCTION.search(line)
            if match:
                devices = _group_size(match[2], line)
                counts[match[2], devices, _payload(match[2], match[1], bool(match[3]), devices)] += runs[name]
    found = [
        {"kind": kind, "devices": devices, "bytes": size, "count": count}
        for (kind, devices, size), count in counts.items()
        if count and devices > 1
    ]
    return sorted(found, key=lambda x: (-x["bytes"] * x["count"], x["kind"]))


def _group_size(kind: str, line: str) -> int:
    if kind == "collective-permute":  # one sender, one receiver
        return 2
    groups = _GROUPS.search(line)
    return (int(groups[1]) if groups[1] else groups[2].count(",") + 1) if groups else 1


def _computations(text: str) -> dict[str, list[str]]:
    """Lines of each computation by name; the entry computation is stored under ""."""
    result, lines = {}, []
    for line in text.splitlines():
        match = _COMPUTATION.match(line)
        if match:
            lines = result.setdefault("" if line.startswith("ENTRY") else match[1], [])
        else:
            lines.append(line)
    return result


def _runs(computations) -> dict[str, int]:
    """Number of executions of each computation; the entry runs once."""
    callers = collections.defaultdict(list)
    for name, lines in computations.items():
        for line in lines:
            for how, called in _CALLED.findall(line):
                turns = _TURNS.search(line) if how == "body" else None
                for other in re.findall(r"[\w.\-]+", called):
                    callers[other].append((name, int(turns[1]) if turns else 1))
    known = {"": 1}

    def runs(name):
        if name not in known:
            known[name] = sum(turns * runs(caller) for caller, turns in callers[name])
        return known[name]

    return {name: runs(name) for name in computations}


def _payload(kind: str, shape: str, started: bool, devices: int) -> int:
    """Bytes of the full array on one device; an asynchronous start lists both operands and results."""
    sizes = [
        math.prod([int(n) for n in dimensions.split(",") if n]) * (int(bits) if bits else 8) // 8
        for element, bits, dimensions in _ARRAY.findall(shape)
        if element != "token"
    ]
    if started and kind == "all-gather":
        sizes = sizes[len(sizes) // 2 :]
    elif started and kind == "collective-permute":
        sizes = sizes[1:2]
    return sum(sizes) * (devices if kind == "reduce-scatter" else 1)
