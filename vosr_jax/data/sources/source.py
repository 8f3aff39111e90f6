"""What all kinds of sources share: their interface, and code for its implementations.

`ConcatenatedSource` joins several, `Names` holds millions of names in little memory, and
`megapixels` estimates the size of a source's images.
"""

import abc
import functools
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import Image

from vosr_jax.data.pictures import UnreadablePicture, decode_picture, read_all

_LOOKED_AT = 16


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


class Names(Sequence[str]):
    """Strings in one array of bytes, decoded on access.

    A million paths as Python strings take 100 MB and seconds to send to every worker process. Here
    they are two buffers.

    Args:
      strings: the strings; file names may contain any bytes, as os.fsdecode gives them.
    """

    def __init__(self, strings: Iterable[str] = ()):
        encoded = [string.encode("utf-8", "surrogateescape") for string in strings]
        self._text = b"".join(encoded)
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        self._ends = np.concatenate([[0], np.cumsum(lengths)])

    @classmethod
    def from_arrays(cls, text: np.ndarray, ends: np.ndarray) -> "Names":
        """Make Names from the result of `arrays`."""
        names = cls()
        names._text, names._ends = text.tobytes(), ends
        return names

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (text uint8, ends int64), for saving to a file."""
        return np.frombuffer(self._text, np.uint8), self._ends

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, position):
        if isinstance(position, slice):
            return [self[number] for number in range(*position.indices(len(self)))]
        if not 0 <= position < len(self):
            raise IndexError(f"name {position} of {len(self)}")
        start, end = self._ends[position : position + 2]
        return self._text[start:end].decode("utf-8", "surrogateescape")


def megapixels(source: Source, looked_at: int = _LOOKED_AT) -> tuple[float, int] | None:
    """Mean size of evenly spaced images; for most formats only the headers are decoded.

    Args:
      source: an open source.
      looked_at: most images to look at.

    Returns:
      (megapixels per image, number of images looked at); None if none can be read.
    """
    count = len(source)
    positions = sorted({i * count // looked_at for i in range(looked_at)} if count else ())
    sizes = [size for position in positions if (size := _pixels(source, position))]
    return (sum(sizes) / len(sizes) / 1e6, len(sizes)) if sizes else None


def _pixels(source: Source, position: int) -> int:
    """Pixels of an image; 0 if it cannot be read, which the run reports when it gets there."""
    try:
        with source.open(position) as file, Image.open(file) as image:
            return image.width * image.height
    # A decoder may raise any error for data that is not an image file, such as raw arrays.
    except Exception:
        try:
            height, width = source.read(position).shape[:2]
        except (UnreadablePicture, OSError):
            return 0
        return height * width
