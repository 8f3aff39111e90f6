"""Decoded pictures kept in memory, because decoding a photograph takes longer than degrading."""

import threading

from PIL import Image

# Pillow keeps a fourth byte with the three of RGB.
_PIXEL_BYTES = 4


class PictureCache:
    """Keeps the pictures that came first, up to a number of bytes, and never drops one.

    Every picture is read once in each pass over a source. Dropping the oldest would then drop
    just those that come again soonest; keeping whatever fits is hit as often as possible.
    """

    def __init__(self, capacity: int):
        self._free = capacity
        self._pictures: dict[tuple[int, int], Image.Image] = {}
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int]) -> Image.Image | None:
        """The picture of (source, position), or None."""
        return self._pictures.get(key)

    def put(self, key: tuple[int, int], picture: Image.Image) -> None:
        """Keep a picture if there is room."""
        size = picture_bytes(picture)
        with self._lock:
            if key not in self._pictures and size <= self._free:
                self._free -= size
                self._pictures[key] = picture

    def __len__(self) -> int:
        return len(self._pictures)


def picture_bytes(picture: Image.Image) -> int:
    """The memory that a decoded picture takes."""
    return _PIXEL_BYTES * picture.width * picture.height
