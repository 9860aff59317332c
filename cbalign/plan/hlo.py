"""Reads the text of an optimised HLO module: its computations, how often each runs, and the trip counts of loops."""

import collections
import dataclasses
import functools
import math
import re

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = ")
_ROW = re.compile(r"^(\d+) (.*)$")
_OPCODE = re.compile(r" ?([a-z][\w\-]*)\(")
_CALLED = re.compile(r"\b(body|condition|calls|to_apply|branch_computations|called_computations)=")
_NAMES = re.compile(r"%?([\w.\-]+)")
_TURNS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_FRAME = re.compile(r"stack_frame_id=(\d+)")
_TABLES = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")
_OP_NAME = re.compile(r'op_name="((?:[^"\\]|\\.)*)"')
_ARRAY = re.compile(r"\b(pred|token|[a-z]+(\d+)\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
# Arrays in this memory space are in HBM; others are on the chip (vector or scalar memory).
_ON_CHIP = re.compile(r"S\([1-9]")


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of an instruction's result.

    Attributes:
      element: element type, such as "bf16".
      dimensions: its shape.
      bytes: its size without padding.
      on_chip: whether the compiler keeps it outside the main memory.
    """

    element: str
    dimensions: tuple[int, ...]
    bytes: int
    on_chip: bool


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
      name, opcode: as in the text.
      shape: text of its result's type.
      operands: names of its operands.
      called: ((how, name of a computation), ...), such as ("body", "region_0").
      inside: text of the operands; a constant's value, a parameter's number.
      attributes: text after the operands.
    """

    name: str
    opcode: str
    shape: str
    operands: tuple[str, ...]
    called: tuple[tuple[str, str], ...]
    inside: str
    attributes: str

    @property
    def op_name(self) -> str:
        """Scopes of the JAX operation it came from, "" where the compiler made it."""
        match = _OP_NAME.search(self.attributes)
        return match[1] if match else ""

    @property
    def frame(self) -> int:
        """Number of the line of source it came from, see `Module.stack`; 0 where there is none."""
        match = _FRAME.search(self.attributes)
        return int(match[1]) if match else 0

    @property
    def cycles(self) -> int | None:
        """The TPU compiler's estimate for one execution, or None where it has none."""
        match = _CYCLES.search(self.attributes)
        return int(match[1]) if match else None

    @functools.cached_property
    def arrays(self) -> list[Array]:
        """The arrays of its result; several for a tuple."""
        return arrays_of(self.shape)


def arrays_of(shape: str) -> list[Array]:
    """The arrays named in the text of a type."""
    found = []
    for element, bits, dimensions, layout in _ARRAY.findall(shape):
        if element != "token":
            sides = tuple(int(n) for n in dimensions.split(",") if n)
            size = math.prod(sides) * (int(bits) if bits else 8)
            found.append(Array(element, sides, -(-size // 8), bool(_ON_CHIP.search(layout))))
    return found


@dataclasses.dataclass
class Module:
    """A module.

    Attributes:
      header: its first line.
      computations: {name: instructions by name, in the order of the text}; the entry is "".
      tables: the source locations, {name of the table: {number: text of the line}}.
    """

    header: str
    computations: dict[str, dict[str, Instruction]]
    tables: dict[str, dict[int, str]]

    @functools.cached_property
    def files(self) -> dict[int, str]:
        """{number of a stack frame: the files of its calls, innermost first, one after another}."""
        names = {number: text.strip('"') for number, text in self.tables.get("FileNames", {}).items()}
        locations = {
            number: names[int(re.search(r"file_name_id=(\d+)", text)[1])]
            for number, text in self.tables.get("FileLocations", {}).items()
        }
        frames = {
            number: tuple(int(re.search(rf"{key}=(\d+)", text)[1]) for key in ("file_location_id", "parent_frame_id"))
            for number, text in self.tables.get("StackFrames", {}).items()
        }
        stacks = {}
        for number in frames:
            seen, stack = number, []
            while True:
                location, parent = frames[seen]
                stack.append(locations[location])
                if parent == seen or parent not in frames:
                    break
                seen = parent
            stacks[number] = " ".join(stack)
        return stacks

    def turns(self, loop: Instruction, caller: str) -> int | None:
        """Iterations of a `while`, from its backend config or from its counter; None if unknown."""
        match = _TURNS.search(loop.attributes)
        return int(match[1]) if match else _counted_turns(self, loop, caller)

    @functools.cached_property
    def executions(self) -> dict[str, int]:
        """How often each computation runs when the entry runs once; of a conditional every branch counts.

        A loop counts once per iteration if its trip count is known, otherwise once (`unknown_loops` names it).
        """
        callers = collections.defaultdict(list)
        for name, instructions in self.computations.items():
            for instruction in instructions.values():
                for how, other in instruction.called:
                    turns = self.turns(instruction, name) if how in ("body", "condition") else 1
                    callers[other].append((name, 1 if turns is None else turns + (how == "condition")))
        known = {"": 1}

        def runs(name):
            if name not in known:
                known[name] = sum(turns * runs(caller) for caller, turns in callers[name])
            return known[name]

        return {name: runs(name) for name in self.computations}

    @functools.cached_property
    def unknown_loops(self) -> list[str]:
        """Names of loops whose trip count is not known."""
        return [
            instruction.name
            for name, instructions in self.computations.items()
            for instruction in instructions.values()
            if instruction.opcode == "while" and self.turns(instruction, name) is None
        ]

    @functools.cached_property
    def scheduled(self) -> list[str]:
        """Computations whose instructions the device runs one after another: the entry and what control flow calls.

        The others are bodies of fusions, reductions and the like; their cost is part of the calling instruction's.
        """
        found, left = [], [""]
        while left:
            name = left.pop()
            found.append(name)
            for instruction in self.computations[name].values():
                if instruction.opcode in ("while", "conditional", "call"):
                    left += [other for _, other in instruction.called if other not in found + left]
        return found


def parse(text: str) -> Module:
    """Parses the text of an optimised HLO module, as from `compiled.as_text()`."""
    lines = text.splitlines()
    computations, tables, current, table = {}, {}, None, None
    for line in lines:
        if table is not None and (match := _ROW.match(line)):
            table[int(match[1])] = match[2]
        elif line in _TABLES:
            table = tables.setdefault(line, {})
        elif line.endswith("{") and (match := _COMPUTATION.match(line)):
            current = computations.setdefault("" if line.startswith("ENTRY") else match[1], {})
        elif current is not None and (match := _INSTRUCTION.match(line)):
            current[match[1]] = _instruction(match[1], line[match.end() :])
        elif line == "}":
            current = None
    return Module(lines[0] if lines else "", computations, tables)


def _instruction(name: str, rest: str) -> Instruction:
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    match = _OPCODE.match(rest, end)
    assert match, f"not an instruction: {name} = {rest[:200]}"
    close = _closing(rest, match.end() - 1)
    inside, attributes = rest[match.end() : close], rest[close + 1 :]
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    return Instruction(name, match[1], rest[:end], operands, tuple(_called(attributes)), inside, attributes)


def _closing(text: str, start: int) -> int:
    """Position of the parenthesis that closes the one at `start`."""
    depth = 0
    for match in re.finditer(r"[()]", text[start:]):
        depth += 1 if match[0] == "(" else -1
        if not depth:
            return start + match.start()
    raise ValueError(f"no closing parenthesis in {text[start : start + 200]}")


def _called(attributes: str):
    """Yields (how, name) of the computations an instruction calls."""
    for match in _CALLED.finditer(attributes):
        rest = attributes[match.end() :]
        names = rest[1 : rest.index("}")] if rest.startswith("{") else _NAMES.match(rest)[0]
        for name in _NAMES.findall(names):
            yield match[1], name


def _counted_turns(module: Module, loop: Instruction, caller: str) -> int | None:
    """Iterations of `for (i = start; i < end; i += step)`, read from the condition, the body and the first values."""
    called = dict(loop.called)
    test = _symbol(module, called["condition"], "")
    match test:
        case ("<", ("carried", index), end):
            pass
        case _:
            return None
    first = _carried(module, caller, loop.operands[0])
    if isinstance(end, tuple):  # the bound is itself carried
        end = first(end[1]) if end[0] == "carried" else None
    start, step = first(index), _carried(module, called["body"], "")(index)
    if not isinstance(start, int) or not isinstance(end, int):
        return None
    match step:
        case ("+", ("carried", other), int(by)) if other == index and by > 0:
            return max(0, -(-(end - start) // by))
    return None


def _carried(module: Module, name: str, value: str):
    """What is known of the elements of a tuple, by index; `value` is the tuple's name, or "" for the root."""
    computation = module.computations[name]
    instruction = computation[value] if value else list(computation.values())[-1]

    def element(index):
        return _symbol(module, name, instruction.operands[index]) if instruction.opcode == "tuple" else None

    return element


def _symbol(module: Module, name: str, value: str, arguments=None):
    """What a scalar is, as far as loop counters need it.

    Args:
      module: that holds the computation.
      name: of the computation.
      value: name of the instruction, or "" for the root.
      arguments: symbols of the parameters, for the body of a fusion.

    Returns:
      An int, ("carried", index of the loop's tuple), ("+", symbol, int), ("<", symbol, symbol), or None.
    """
    computation = module.computations[name]
    instruction = computation[value] if value else list(computation.values())[-1]
    opcode, operands = instruction.opcode, instruction.operands
    if opcode == "constant":
        return int(instruction.inside) if re.fullmatch(r"-?\d+", instruction.inside) else None
    if opcode == "parameter":
        return arguments[int(instruction.inside)] if arguments else None
    if opcode == "get-tuple-element":
        index = re.search(r"index=(\d+)", instruction.attributes)
        return ("carried", int(index[1])) if index and computation[operands[0]].opcode == "parameter" else None
    if opcode in _SAME_VALUE:
        return _symbol(module, name, operands[0], arguments)
    symbols = [_symbol(module, name, operand, arguments) for operand in operands] if opcode in _READ else []
    if opcode == "fusion":
        return _symbol(module, dict(instruction.called)["calls"], "", symbols)
    if opcode == "add":
        number = [symbol for symbol in symbols if isinstance(symbol, int)]
        other = [symbol for symbol in symbols if not isinstance(symbol, int)]
        return ("+", other[0], number[0]) if number and other else sum(number) if number else None
    if opcode == "compare" and "direction=LT" in instruction.attributes:
        return ("<", *symbols)
    return None


_SAME_VALUE = ("copy", "bitcast", "convert", "copy-start", "copy-done", "reshape")
_READ = ("fusion", "add", "compare")
