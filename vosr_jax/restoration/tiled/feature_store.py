"""Store of feature maps that do not fit on the device: in host memory, or in files."""

import errno
import math
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from vosr_jax.errors import UserError
from vosr_jax.host_memory import free_host_memory

_MOST_BYTES = 4 << 30
_SHARE = 4  # the store may take one part in four of the free memory


class FeatureStore:
    """Float32 maps on the host; beyond a limit, in temporary files. Use it as a context manager.

    Args:
      host_bytes: the limit; None means a quarter of the free memory, at most 4 GiB.
    """

    def __init__(self, host_bytes: int | None = None):
        if host_bytes is None:
            host_bytes = min(_MOST_BYTES, free_host_memory() // _SHARE)
        self._left = host_bytes
        self._held: dict[int, np.ndarray] = {}
        self._files: dict[int, tuple[np.ndarray, Path]] = {}
        self._folder: Path | None = None
        self._made = 0

    def __enter__(self) -> "FeatureStore":
        return self

    def __exit__(self, *_: object) -> None:
        self._held.clear()
        self._files.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def new(self, shape: tuple[int, ...]) -> np.ndarray:
        """Allocate a map of `shape` [H, W, C] with arbitrary content.

        Raises:
          UserError: the disk of the temporary files is full.
        """
        size = 4 * math.prod(shape)
        if size <= self._left:
            self._left -= size
            held = np.empty(shape, np.float32)
            self._held[id(held)] = held
            return held
        path = self._reserve(size)
        mapped = np.memmap(path, np.float32, "r+", shape=shape)
        self._files[id(mapped)] = mapped, path
        return mapped

    def free(self, used: np.ndarray) -> None:
        """Free a map; an array that is not from this store is left alone."""
        if self._held.pop(id(used), None) is not None:
            self._left += used.nbytes
        elif id(used) in self._files:
            self._files.pop(id(used))[1].unlink()

    def _reserve(self, size: int) -> Path:
        """Allocate a file fully; a sparse mapped one crashes the process if the disk fills up."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="vosr-maps-"))
        self._made += 1
        path = self._folder / str(self._made)
        try:
            with path.open("wb") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise UserError(
                f"{self._folder.parent} has no room for {size / 1e9:.1f} GB of temporary features; "
                "make room there, or name another folder in the environment variable TMPDIR"
            ) from error
        return path
