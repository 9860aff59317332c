"""The time of a compiled TPU program by the compiler's own estimates, and what it is spent on.

The device runs a computation's instructions in the order of the text. An instruction takes the cycles the compiler
estimates; one without an estimate takes the time of its bytes. Copies between memories and asynchronous collectives run
beside the others, each kind one after another; where an instruction has to wait for one, the wait counts as its time.
"""

import collections
import dataclasses

from cbalign.plan.chips import Topology
from cbalign.plan.collectives import KINDS, sent_bytes
from cbalign.plan.hlo import Instruction, Module
from cbalign.plan.work import COLLECTIVES, COPIES, class_of

# They take no time: names for values, and bookkeeping.
_FREE = (
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id",
    "opt-barrier", "add-dependency", "domain", "while", "conditional", "call",
)  # fmt: skip
_CONTROL = ("while", "conditional", "call")
# What may run asynchronously, as NAME-start and NAME-done.
_ASYNC = (*KINDS, "copy", "async", "slice", "send", "recv")
# Of their first operand only what the result holds is read.
_SLICES = ("slice", "dynamic-slice", "gather")


@dataclasses.dataclass(frozen=True)
class Profile:
    """Where the time of one execution of a program goes, per device.

    Attributes:
      seconds: of the whole program.
      bytes: read from and written to the main memory.
      classes: {class of work, see `cbalign.plan.work`: seconds}, largest first.
      hidden: {"copies" and "collectives": seconds that run beside other work and cost nothing}.
      unestimated: share of the seconds for which the compiler has no estimate; computed from bytes.
      unknown_loops: loops whose trip count is unknown; counted once.
    """

    seconds: float
    bytes: int
    classes: dict[str, float]
    hidden: dict[str, float]
    unestimated: float
    unknown_loops: int


def profile(module: Module, topology: Topology) -> Profile:
    """The profile of a program compiled for a topology of TPUs."""
    clock = _Timeline(module, topology)
    total = clock.run("")
    classes = {name: seconds for name, seconds in clock.classes.most_common() if seconds}
    return Profile(
        seconds=total,
        bytes=clock.bytes,
        classes=classes,
        hidden=dict(clock.hidden),
        unestimated=clock.unestimated / total if total else 0.0,
        unknown_loops=len(module.unknown_loops),
    )


class _Timeline:
    """Walks through a program; the sums are over everything that has run."""

    def __init__(self, module: Module, topology: Topology):
        self.module, self.topology = module, topology
        self.classes, self.hidden = collections.Counter(), collections.Counter()
        self.unestimated, self.bytes = 0.0, 0

    def run(self, name: str, times: int = 1) -> float:
        """Seconds of one execution of a computation; its parts enter the sums `times` times."""
        computation, now = self.module.computations[name], 0.0
        free: dict[str, float] = {}  # when each engine beside the cores is done with what it has
        ends: dict[str, tuple[str, float, float]] = {}  # of asynchronous work: engine, end, duration
        for instruction in computation.values():
            if instruction.opcode in _CONTROL:
                now += self._control(instruction, name, times)
            elif instruction.opcode in _FREE or instruction.opcode.endswith("-update"):
                continue
            elif (phase := _phase(self.module, instruction)) == "done":
                engine, end, duration = ends.get(_started(computation, instruction, ends), (COPIES, now, 0.0))
                wait = max(0.0, end - now)
                self.classes[engine] += times * min(wait, duration)
                self.hidden[engine] += times * max(0.0, duration - wait)
                now += wait
            else:
                size = moved_bytes(self.module, name, instruction)
                self.bytes += times * size
                if phase == "start":
                    engine, duration = self._asynchronous(instruction, size)
                    begin = max(now, free.get(engine, 0.0))
                    free[engine] = begin + duration
                    ends[instruction.name] = (engine, begin + duration, duration)
                else:
                    now += self._synchronous(instruction, size, times)
        return now

    def _control(self, instruction: Instruction, caller: str, times: int) -> float:
        if instruction.opcode == "while":
            turns = self.module.turns(instruction, caller)
            turns, called = 1 if turns is None else turns, dict(instruction.called)
            return turns * sum(self.run(called[how], times * turns) for how in ("condition", "body"))
        # Of branches all are counted in the sums, and the longest in the time: there is none in a step.
        return max(self.run(other, times) for _, other in instruction.called)

    def _asynchronous(self, instruction: Instruction, size: int) -> tuple[str, float]:
        kind = collective_kind(self.module, instruction)
        if kind:
            return COLLECTIVES, self._link_seconds(kind, instruction)
        return COPIES, size / self.topology.memory_bandwidth

    def _synchronous(self, instruction: Instruction, size: int, times: int) -> float:
        kind, cycles = collective_kind(self.module, instruction), instruction.cycles
        if kind:
            seconds = self._link_seconds(kind, instruction)
            self.classes[COLLECTIVES] += times * seconds
            return seconds
        if cycles is None:
            seconds = size / self.topology.memory_bandwidth
            self.unestimated += times * seconds
        else:
            seconds = cycles / self.topology.chip.clock_hz
        self.classes[class_of(self.module, instruction)] += times * seconds
        return seconds

    def _link_seconds(self, kind: str, instruction: Instruction) -> float:
        bandwidth = self.topology.link_bandwidth / self.topology.chip.devices
        return sent_bytes(self.module, kind, instruction) / bandwidth if bandwidth else 0.0


def _phase(module: Module, instruction: Instruction) -> str:
    """Whether it starts or ends asynchronous work: "start", "done" or "" for neither; a fusion may wrap either."""
    inside = [instruction]
    if instruction.opcode == "fusion":
        inside = module.computations[dict(instruction.called)["calls"]].values()
    ends = {
        x.opcode.rpartition("-")[2] for x in inside if x.opcode.removesuffix("-start").removesuffix("-done") in _ASYNC
    }
    return ends.pop() if len(ends) == 1 and ends <= {"start", "done"} else ""


def _started(computation, instruction: Instruction, ends) -> str:
    """Name of the start that a "done" waits for, through updates and tuples; "" if it is not among `ends`."""
    left = list(instruction.operands)
    while left:
        name = left.pop(0)
        if name in ends:
            return name
        if name in computation and computation[name].opcode in (
            "async-update",
            "get-tuple-element",
            "tuple",
            "bitcast",
        ):
            left += computation[name].operands
    return ""


def collective_kind(module: Module, instruction: Instruction) -> str:
    """The kind of collective an instruction is or wraps, "" for any other."""
    kind = instruction.opcode.removesuffix("-start")
    if kind in KINDS:
        return kind
    for how, other in instruction.called:
        if how in ("calls", "called_computations"):
            for inner in module.computations[other].values():
                if inner.opcode.removesuffix("-start") in KINDS:
                    return inner.opcode.removesuffix("-start")
    return ""


def moved_bytes(module: Module, name: str, instruction: Instruction) -> int:
    """Bytes of the main memory that one execution of an instruction reads and writes, without padding.

    A slice reads no more than its result holds, an update in place writes no more than the update; what the compiler
    keeps on the chip costs nothing.
    """
    computation = module.computations[name]
    if instruction.opcode.endswith("-start"):  # the result names source and destination
        arrays = instruction.arrays[:2] if instruction.opcode == "copy-start" else instruction.arrays
        return sum(array.bytes for array in arrays if not array.on_chip)
    inner = module.computations[dict(instruction.called)["calls"]] if instruction.opcode == "fusion" else None
    if inner is None:
        return _plain_bytes(computation, instruction)
    users = collections.defaultdict(list)
    for user in inner.values():
        for operand in user.operands:
            users[operand].append(user)
    total = 0
    for parameter in inner.values():
        if parameter.opcode == "parameter":
            total += _read_bytes(module, parameter, users)
    root = list(inner.values())[-1]
    parts = [inner[operand] for operand in root.operands] if root.opcode == "tuple" else [root]
    for part, array in zip(parts, instruction.arrays):
        if not array.on_chip:
            total += _written_bytes(inner, part, array)
    return total


def _read_bytes(module: Module, parameter: Instruction, users) -> int:
    whole = sum(array.bytes for array in parameter.arrays if not array.on_chip)
    read = 0
    for user in users[parameter.name]:
        if user.opcode in _SLICES and user.operands[0] == parameter.name:
            read += sum(array.bytes for array in user.arrays)
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == parameter.name:
            continue
        else:
            return whole
    return min(read, whole)


def _written_bytes(inner, part: Instruction, array) -> int:
    if part.opcode == "bitcast" and part.operands[0] in inner:
        part = inner[part.operands[0]]
    if part.opcode == "dynamic-update-slice":
        return sum(update.bytes for update in inner[part.operands[1]].arrays)
    return array.bytes


def _plain_bytes(computation, instruction: Instruction) -> int:
    results = sum(array.bytes for array in instruction.arrays if not array.on_chip)
    operands = [computation[operand] for operand in instruction.operands if operand in computation]
    if instruction.opcode in _SLICES:
        return 2 * results
    if instruction.opcode == "dynamic-update-slice":
        return 2 * sum(array.bytes for array in operands[1].arrays)
    return results + sum(array.bytes for operand in operands for array in operand.arrays if not array.on_chip)
