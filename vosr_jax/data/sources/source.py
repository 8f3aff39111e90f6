"""What every kind of source can do: give the encoded picture at a position."""

import abc
import io
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from vosr_jax.data.pictures import decode_picture, read_all


@dataclass(frozen=True, eq=False)
class Source(abc.ABC):
    """Pictures with random access; a picture is the same record whatever kind of source holds it.

    Sources travel to worker processes, so they hold no open files; a kind that needs some opens
    them where it is used.

    Attributes:
      name: how messages call the source.
      weight: share of the samples, relative to the other sources' weights.
    """

    name: str
    weight: float

    @abc.abstractmethod
    def __len__(self) -> int: ...

    def about(self) -> str:
        """What a start says of the source, in one line."""
        return f"{self.name}: {len(self):,} pictures{self.details()}"

    def details(self) -> str:
        """What else is to be known of it, as the end of that line."""
        return ""

    @abc.abstractmethod
    def record_name(self, position: int) -> str:
        """What to call a record in messages: a path wherever there is one."""

    @abc.abstractmethod
    def open(self, position: int) -> BinaryIO:
        """The content of the picture file; raises UnreadablePicture."""

    def read(self, position: int) -> np.ndarray:
        """Decode a record: [H, W, 3] uint8; raises UnreadablePicture."""
        with self.open(position) as file:
            return decode_picture(read_all(file))


def in_memory(data: bytes) -> BinaryIO:
    """Bytes as an open file."""
    return io.BytesIO(data)
