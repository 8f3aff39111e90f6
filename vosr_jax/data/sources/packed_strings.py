"""Millions of short strings in little memory."""

from collections.abc import Iterable, Sequence

import numpy as np


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
