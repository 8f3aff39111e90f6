"""Reads the text of a compiled program: computations, their instructions, and how often each runs.

XLA's own cost analysis counts the body of a loop once and forgets which network a collective
crosses; the text has all that is needed to do better.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

_BITS = {"pred": 8, "s4": 4, "u4": 4, "c64": 64, "c128": 128, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\]")
_CALLED = re.compile(
    r"(?:body|condition|calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclasses.dataclass(frozen=True)
class Shape:
    """One array: element type and sizes."""

    dtype: str
    sizes: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.sizes)

    @property
    def bytes(self) -> int:
        """Without padding."""
        return self.elements * bits_of(self.dtype) // 8


def bits_of(dtype: str) -> int:
    """Bits of an element of XLA's type, as "bf16" or "f8e4m3fn"."""
    if dtype in _BITS:
        return _BITS[dtype]
    digits = re.match(r"[a-z]+(\d+)", dtype)
    return int(digits[1]) if digits else 0


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: unique in its computation.
      opcode: as "fusion" or "all-gather-start".
      shapes: of the result; of all parts where it is a tuple.
      operands: names of the instructions that it reads.
      attributes: the rest of the line.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    attributes: str

    @property
    def called(self) -> tuple[str, ...]:
        """Names of the computations that it calls."""
        return tuple(_CALLED.findall(self.attributes))

    @property
    def bytes(self) -> int:
        """Of the result."""
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
        """(times, computation, instruction) of all that runs, loops' bodies included.

        What lies inside a fusion is part of it and not listed. A loop whose length the compiler
        does not tell counts once.
        """
        yield from self._executed(self.entry, 1)

    def _executed(self, name: str, times: int) -> Iterator[tuple[int, str, Instruction]]:
        for instruction in self.computations[name].values():
            if instruction.opcode == "while":
                trips = _TRIPS.search(instruction.attributes)
                inner = times * (int(trips[1]) if trips else 1)
                for called in instruction.called:
                    yield from self._executed(called, inner)
            elif instruction.opcode in ("call", "conditional", "async-start"):
                for called in instruction.called:
                    yield from self._executed(called, times)
            else:
                yield times, name, instruction


def parse(text: str) -> Program:
    """The program in the text that `compiled.as_text()` gives.

    Raises:
      ValueError: it has no entry computation.
    """
    computations: dict[str, Computation] = {}
    entry, current = None, None
    for line in text.splitlines():
        if line.endswith("{") and ") -> " in line and " = " not in line.split(") -> ")[0][:80]:
            head = line.split("(")[0].split()
            name = head[-1].lstrip("%")
            if head[0] == "ENTRY":
                entry = name
            current = computations.setdefault(name, {})
        elif line.startswith("}"):
            current = None
        elif current is not None and " = " in line:
            instruction = _instruction(line)
            if instruction is not None:
                current[instruction.name] = instruction
    if entry is None:
        raise ValueError("this is no text of a compiled program: it has no ENTRY")
    return Program(computations, entry)


def _instruction(line: str) -> Instruction | None:
    name, _, rest = line.strip().partition(" = ")
    name = name.removeprefix("ROOT ").strip().lstrip("%")
    if rest.startswith("("):
        end = _closing(rest, 0) + 1
    else:
        end = rest.find(" ")
    shapes = tuple(
        Shape(dtype, tuple(int(size) for size in sizes.split(",") if size))
        for dtype, sizes in _ARRAY.findall(rest[:end])
    )
    opcode, parenthesis, _ = rest[end:].strip().partition("(")
    if not parenthesis:
        return None
    start = rest.index("(", end)
    stop = _closing(rest, start)
    operands = tuple(re.findall(r"%([\w.\-]+)", rest[start:stop]))
    return Instruction(name, opcode, shapes, operands, rest[stop + 1 :])


def _closing(text: str, start: int) -> int:
    """Where the parenthesis that opens at `start` closes."""
    depth = 0
    for position in range(start, len(text)):
        depth += (text[position] == "(") - (text[position] == ")")
        if depth == 0:
            return position
    return len(text) - 1
