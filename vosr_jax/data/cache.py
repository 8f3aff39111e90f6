"""A cache of decoded images: decoding a photo takes longer than degrading it."""

import threading

from PIL import Image

# Pillow stores an RGB pixel in four bytes.
_PIXEL_BYTES = 4


class PictureCache:
    """Keeps the first images, up to a number of bytes, and never drops one.

    Every pass over a source reads each image once. Dropping the oldest would drop those that are
    needed again soonest. Keeping the first that fit gives the highest hit rate.
    """

    def __init__(self, capacity: int):
        self._free = capacity
        self._pictures: dict[tuple[int, int], Image.Image] = {}
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int]) -> Image.Image | None:
        """The image of (source, position), or None."""
        return self._pictures.get(key)

    def put(self, key: tuple[int, int], picture: Image.Image) -> None:
        """Keep an image if there is room."""
        size = picture_bytes(picture)
        with self._lock:
            if key not in self._pictures and size <= self._free:
                self._free -= size
                self._pictures[key] = picture

    def __len__(self) -> int:
        return len(self._pictures)


def picture_bytes(picture: Image.Image) -> int:
    """Bytes of memory that a decoded image takes."""
    return _PIXEL_BYTES * picture.width * picture.height
