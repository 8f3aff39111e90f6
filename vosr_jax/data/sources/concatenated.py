"""Several sources concatenated to one."""

import functools
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from vosr_jax.data.sources.source import Source


@dataclass(frozen=True, eq=False)
class ConcatenatedSource(Source):
    """The records of all parts in order; a part that occurs twice gives its records twice."""

    parts: tuple[Source, ...]

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([len(part) for part in self.parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def details(self) -> str:
        return "".join(dict.fromkeys(part.details() for part in self.parts))

    def _place(self, position: int) -> tuple[Source, int]:
        if not 0 <= position < len(self):
            raise IndexError(f"record {position} of {len(self)}")
        number = int(np.searchsorted(self._ends, position, side="right"))
        part = self.parts[number]
        return part, position - int(self._ends[number]) + len(part)

    def record_name(self, position: int) -> str:
        part, inside = self._place(position)
        return part.record_name(inside)

    def open(self, position: int) -> BinaryIO:
        part, inside = self._place(position)
        return part.open(inside)
