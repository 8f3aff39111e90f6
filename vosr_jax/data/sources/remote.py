"""Reading from buckets: partial reads, and errors like those of a disk."""

import errno
import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager

from vosr_jax.errors import UserError
from vosr_jax.files.cached import identity_of
from vosr_jax.files.paths import filesystem, is_of_the_store, reason_of

_SCHEMES = ("gs://", "s3://")
# Bytes per read during a walk through a file: one read covers many headers.
_AHEAD = 1 << 23


def is_remote(path: str) -> bool:
    """Whether a source's path is an address; `tar:gs://...` only contains one."""
    return path.startswith(_SCHEMES)


@contextmanager
def _as_on_a_disk(path: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "there is no such file", path) from error
    except Exception as error:
        if not is_of_the_store(error):
            raise
        raise OSError(errno.EIO, reason_of(error), path) from error


def read_range(path: str, start: int, end: int | None) -> bytes:
    """Read the bytes from start up to end; raises OSError."""
    with _as_on_a_disk(path):
        return filesystem(path).cat_file(path, start=start, end=end)


class RangeFile(io.RawIOBase):
    """A file in a bucket; each read is one request for just that part."""

    def __init__(self, path: str):
        self._path, self._place = path, 0
        self._known_size: int | None = None

    def _size(self) -> int:
        if self._known_size is None:
            with _as_on_a_disk(self._path):
                self._known_size = int(filesystem(self._path).info(self._path)["size"])
        return self._known_size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place}.get(whence)
        self._place = (self._size() if base is None else base) + offset
        return self._place

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            data = read_range(self._path, self._place, None)
        else:
            end = min(self._place + size, self._size())
            data = read_range(self._path, self._place, end) if end > self._place else b""
        self._place += len(data)
        return data

    def readinto(self, buffer) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def open_ahead(path: str) -> io.BufferedReader:
    """Open a file in a bucket for a walk from its beginning."""
    return io.BufferedReader(RangeFile(path), _AHEAD)


def kind_of(path: str) -> str | None:
    """Return "file", "directory", or None if there is nothing.

    Raises:
      OSError: the store does not answer, or refuses.
    """
    with _as_on_a_disk(path):
        try:
            return filesystem(path).info(path)["type"]
        except FileNotFoundError:
            return None


def names_in(folder: str) -> list[str]:
    """List the names in a folder; raises OSError."""
    with _as_on_a_disk(folder):
        found = filesystem(folder).ls(folder, detail=False)
    root = folder.partition("://")[2].rstrip("/")
    return [place.rstrip("/").rpartition("/")[2] for place in found if place.rstrip("/") != root]


def names_below(folder: str) -> list[str]:
    """List all files below a folder, relative to it; raises OSError."""
    with _as_on_a_disk(folder):
        found = filesystem(folder).find(folder)
    root = folder.partition("://")[2].rstrip("/") + "/"
    return [place.removeprefix(root) for place in found]


def matching(pattern: str) -> list[str]:
    """List the addresses that match a pattern; raises OSError."""
    with _as_on_a_disk(pattern):
        found = filesystem(pattern).glob(pattern)
    scheme = pattern.partition("://")[0]
    return [f"{scheme}://{place}" for place in found]


def size_and_stamp(path: str) -> tuple[int, int]:
    """Return (bytes, a number that changes with the content); raises OSError."""
    with _as_on_a_disk(path):
        size, tag = identity_of(filesystem(path).info(path))
    return size, int.from_bytes(hashlib.sha256(tag.encode()).digest()[:7])
