"""Decoded pictures kept in memory, because decoding a photograph takes longer than degrading."""

import threading

import numpy as np


class PictureCache:
    """Keeps the pictures that came first, up to a number of bytes, and never drops one.

    Every picture is read once in each pass over a source. Dropping the oldest would then drop
    just those that come again soonest; keeping whatever fits is hit as often as possible.
    """

    def __init__(self, capacity: int):
        self._free = capacity
        self._pictures: dict[tuple[int, int], np.ndarray] = {}
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int]) -> np.ndarray | None:
        """The picture of (source, position), or None."""
        return self._pictures.get(key)

    def put(self, key: tuple[int, int], picture: np.ndarray) -> None:
        """Keep a picture if there is room."""
        with self._lock:
            if key not in self._pictures and picture.nbytes <= self._free:
                self._free -= picture.nbytes
                self._pictures[key] = picture

    def __len__(self) -> int:
        return len(self._pictures)
