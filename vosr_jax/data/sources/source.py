"""Interface of every source: access to the encoded image at a position."""

import abc
import io
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from vosr_jax.data.pictures import decode_picture, read_all


@dataclass(frozen=True, eq=False)
class Source(abc.ABC):
    """Images with random access; an image is the same record in every kind of source.

    Sources are pickled for worker processes, so they hold no open files. A kind that needs open
    files opens them in the process that uses it.

    Attributes:
      name: the source's name in messages.
      weight: share of the samples, relative to the other sources' weights.
    """

    name: str
    weight: float

    @abc.abstractmethod
    def __len__(self) -> int: ...

    def about(self) -> str:
        """One line about the source, printed when a run starts."""
        return f"{self.name}: {len(self):,} pictures{self.details()}"

    def details(self) -> str:
        """Further facts for the end of that line."""
        return ""

    @abc.abstractmethod
    def record_name(self, position: int) -> str:
        """A record's name in messages: a path if there is one."""

    @abc.abstractmethod
    def open(self, position: int) -> BinaryIO:
        """Open the content of the image file; raises UnreadablePicture."""

    def read(self, position: int) -> np.ndarray:
        """Decode a record: [H, W, 3] uint8; raises UnreadablePicture."""
        with self.open(position) as file:
            return decode_picture(read_all(file))


def in_memory(data: bytes) -> BinaryIO:
    """Wrap bytes as an open file."""
    return io.BytesIO(data)
