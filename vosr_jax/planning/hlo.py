"""Parse the text of a compiled program: computations, their instructions, how often each runs.

XLA's own cost analysis counts a loop's body once and loses which network a collective crosses.
The text has both.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

_BITS = {"pred": 8, "s4": 4, "u4": 4, "c64": 64, "c128": 128, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_CALLED = re.compile(
    r"(?:body|condition|calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_INSTRUCTION = re.compile(r"  (?:ROOT )?%[\w.\-]+ = ")


@dataclasses.dataclass(frozen=True)
class Shape:
    """One array: element type, sizes, and whether it is in the chip's own memory, not in HBM."""

    dtype: str
    sizes: tuple[int, ...]
    on_chip: bool = False

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.sizes)

    @property
    def bytes(self) -> int:
        """Bytes without padding."""
        return self.elements * bits_of(self.dtype) // 8


def bits_of(dtype: str) -> int:
    """Bits per element of an XLA type, such as "bf16" or "f8e4m3fn"."""
    if dtype in _BITS:
        return _BITS[dtype]
    digits = re.match(r"[a-z]+(\d+)", dtype)
    return int(digits[1]) if digits else 0


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: unique in its computation.
      opcode: such as "fusion" or "all-gather-start".
      shapes: of the result; of all parts if it is a tuple.
      operands: names of the instructions that it reads.
      attributes: the rest of the line.
      number: an integer constant's value, a parameter's position, else None.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    attributes: str
    number: int | None = None

    @property
    def called(self) -> tuple[str, ...]:
        """Names of the computations that it calls."""
        return tuple(_CALLED.findall(self.attributes))

    @property
    def bytes(self) -> int:
        """Bytes of the result."""
        return sum(shape.bytes for shape in self.shapes)

    def attribute(self, pattern: str) -> str | None:
        """The first group of a pattern in the attributes, or None."""
        found = re.search(pattern, self.attributes)
        return found[1] if found else None


Computation = dict[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled module.

    Attributes:
      computations: {name: {instruction's name: instruction}}, instructions as they are scheduled.
      entry: name of the computation that runs.
    """

    computations: dict[str, Computation]
    entry: str

    def executed(self) -> Iterator[tuple[int, str, Instruction]]:
        """Yield (times, computation, instruction) of all that runs, including loop bodies.

        Instructions inside a fusion are not listed. A loop of unknown length counts once.
        """
        yield from self._executed(self.entry, 1)

    def trips(self, loop: Instruction) -> int:
        """Iterations of a loop: the compiler's note, or the limit of its counter, else 1."""
        noted = _TRIPS.search(loop.attributes)
        if noted:
            return int(noted[1])
        condition = loop.attribute(r"condition=%?([\w.\-]+)") or ""
        limits = [
            self.computations[condition][operand].number
            for instruction in self.computations[condition].values()
            if instruction.opcode == "compare"
            for operand in instruction.operands
            if operand in self.computations[condition]
        ]
        known = [limit for limit in limits if limit is not None]
        return known[0] if len(known) == 1 else 1

    def _executed(self, name: str, times: int) -> Iterator[tuple[int, str, Instruction]]:
        for instruction in self.computations[name].values():
            if instruction.opcode == "while":
                inner = times * self.trips(instruction)
                for called in instruction.called:
                    yield from self._executed(called, inner)
            elif instruction.opcode in ("call", "conditional", "async-start"):
                for called in instruction.called:
                    yield from self._executed(called, times)
            else:
                yield times, name, instruction


def parse(text: str) -> Program:
    """Parse the text of `compiled.as_text()`.

    Raises:
      ValueError: it has no entry computation.
    """
    computations: dict[str, Computation] = {}
    entry, current = None, None
    for line in _logical_lines(text):
        if line.endswith("{") and ") -> " in line and not _INSTRUCTION.match(line):
            head = line.split("(")[0].split()
            name = head[-1].lstrip("%")
            if head[0] == "ENTRY":
                entry = name
            current = computations.setdefault(name, {})
        elif current is not None and _INSTRUCTION.match(line):
            instruction = _instruction(line)
            if instruction is not None:
                current[instruction.name] = instruction
    if entry is None:
        raise ValueError("this is no text of a compiled program: it has no ENTRY")
    return Program(computations, entry)


def _logical_lines(text: str) -> Iterator[str]:
    """Yield lines, with an instruction's kernel text joined to it."""
    pending = ""
    for line in text.splitlines():
        begins = _INSTRUCTION.match(line) or line == "}" or line.startswith(("%", "ENTRY"))
        if begins and pending:
            yield pending
            pending = ""
        if _INSTRUCTION.match(line) or pending:
            pending += line
        else:
            yield line
    if pending:
        yield pending


def _instruction(line: str) -> Instruction | None:
    name, _, rest = line.strip().partition(" = ")
    name = name.removeprefix("ROOT ").strip().lstrip("%")
    if rest.startswith("("):
        end = _closing(rest, 0) + 1
    else:
        end = rest.find(" ")
    shapes = tuple(
        Shape(dtype, tuple(int(size) for size in sizes.split(",") if size), "S(1)" in layout)
        for dtype, sizes, layout in _ARRAY.findall(rest[:end])
    )
    opcode, parenthesis, _ = rest[end:].strip().partition("(")
    if not parenthesis:
        return None
    start = rest.index("(", end)
    stop = _closing(rest, start)
    operands = tuple(re.findall(r"%([\w.\-]+)", rest[start:stop]))
    inside = rest[start + 1 : stop]
    number = int(inside) if opcode in ("constant", "parameter") and inside.isdigit() else None
    return Instruction(name, opcode, shapes, operands, rest[stop + 1 :], number)


def _closing(text: str, start: int) -> int:
    """The position at which the parenthesis that opens at `start` closes."""
    depth = 0
    for position in range(start, len(text)):
        depth += (text[position] == "(") - (text[position] == ")")
        if depth == 0:
            return position
    return len(text) - 1
