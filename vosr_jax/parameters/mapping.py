"""Files as arrays: mapped into memory, their pages given back when they have been read."""

import mmap
import weakref
from pathlib import Path

import numpy as np

_MAPS: weakref.WeakSet = weakref.WeakSet()


def map_file(path: str | Path) -> np.ndarray:
    """A file's bytes as a read-only uint8 array; they are read when they are looked at.

    Raises:
      OSError, ValueError: it cannot be read, or is empty.
    """
    content = np.memmap(path, np.uint8, mode="r")
    _MAPS.add(content._mmap)  # type: ignore[attr-defined]
    return content


def give_back_pages() -> None:
    """Let the pages of all mapped files go; who looks at them again reads them again.

    They would count as this process's memory until the system needs the room, which is what
    limits of containers and of batch systems go by.
    """
    advice = getattr(mmap, "MADV_DONTNEED", None)
    if advice is None:
        return
    for mapped in list(_MAPS):
        if not mapped.closed:
            mapped.madvise(advice)
