"""Memory-mapped files as arrays, whose pages can be released after reading."""

import mmap
import weakref
from pathlib import Path

import numpy as np

_MAPS: weakref.WeakSet = weakref.WeakSet()


def map_file(path: str | Path) -> np.ndarray:
    """Map a file as a read-only uint8 array; bytes are read on access.

    Raises:
      OSError, ValueError: the file cannot be read, or is empty.
    """
    content = np.memmap(path, np.uint8, mode="r")
    _MAPS.add(content._mmap)  # type: ignore[attr-defined]
    return content


def give_back_pages() -> None:
    """Release the pages of all mapped files; a later access reads them again.

    Until the system needs the space, the pages would count as this process's memory, against the
    limits of containers and batch systems.
    """
    advice = getattr(mmap, "MADV_DONTNEED", None)
    if advice is None:
        return
    for mapped in list(_MAPS):
        if not mapped.closed:
            mapped.madvise(advice)
