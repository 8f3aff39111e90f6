"""File access of the sources, on disks and in buckets.

All code that opens, lists or looks for files is here. From a bucket only the parts that are read
come over the network, and errors are those of a disk.
"""

import errno
import glob
import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

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

    def _read_range(self, start: int, end: int | None) -> bytes:
        with _as_on_a_disk(self._path):
            return filesystem(self._path).cat_file(self._path, start=start, end=end)

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
            data = self._read_range(self._place, None)
        else:
            end = min(self._place + size, self._size())
            data = self._read_range(self._place, end) if end > self._place else b""
        self._place += len(data)
        return data

    def readinto(self, buffer) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def open_file(path: str) -> BinaryIO:
    """Open a file for random access; raises OSError."""
    return cast(BinaryIO, RangeFile(path)) if is_remote(path) else open(path, "rb")


def open_to_walk(path: str) -> BinaryIO:
    """Open a file for a sequential walk through all of it; raises OSError."""
    if not is_remote(path):
        return open(path, "rb")
    return cast(BinaryIO, io.BufferedReader(RangeFile(path), _AHEAD))


def read_file(path: str) -> bytes:
    """Read a whole file; raises OSError."""
    with open_file(path) as file:
        return file.read()


def exists(path: str) -> bool:
    """Whether there is a file or folder; raises OSError if a bucket does not answer."""
    return _remote_kind(path) is not None if is_remote(path) else os.path.exists(path)


def is_folder(path: str) -> bool:
    """Whether there is a folder; raises OSError if a bucket does not answer."""
    return _remote_kind(path) == "directory" if is_remote(path) else os.path.isdir(path)


def _remote_kind(path: str) -> str | None:
    """Return "file", "directory", or None if there is nothing."""
    with _as_on_a_disk(path):
        try:
            return filesystem(path).info(path)["type"]
        except FileNotFoundError:
            return None


def names_in(folder: str) -> list[str]:
    """List the names in a folder; raises OSError."""
    if not is_remote(folder):
        return os.listdir(folder)
    with _as_on_a_disk(folder):
        found = filesystem(folder).ls(folder, detail=False)
    root = folder.partition("://")[2].rstrip("/")
    return [place.rstrip("/").rpartition("/")[2] for place in found if place.rstrip("/") != root]


def remote_names_below(folder: str) -> list[str]:
    """List all files below a folder in a bucket, relative to it; raises OSError."""
    with _as_on_a_disk(folder):
        found = filesystem(folder).find(folder)
    root = folder.partition("://")[2].rstrip("/") + "/"
    return [place.removeprefix(root) for place in found]


def matching(pattern: str) -> list[str]:
    """List the paths that match a pattern with *, ? or [], in any order.

    Raises:
      OSError: a bucket does not answer.
    """
    if not is_remote(pattern):
        return glob.glob(pattern)
    with _as_on_a_disk(pattern):
        found = filesystem(pattern).glob(pattern)
    scheme = pattern.partition("://")[0]
    return [f"{scheme}://{place}" for place in found]


def size_and_time(path: str) -> tuple[int, int]:
    """Return (bytes, modification time in nanoseconds), which identify a file's content.

    In a bucket the second value comes from the checksum that the store states.

    Raises:
      OSError: there is no such file.
    """
    if not is_remote(path):
        about = os.stat(path)
        return about.st_size, about.st_mtime_ns
    with _as_on_a_disk(path):
        size, tag = identity_of(filesystem(path).info(path))
    return size, int.from_bytes(hashlib.sha256(tag.encode()).digest()[:7])


def is_absolute(name: str) -> bool:
    """Whether a name is an absolute path or an address."""
    return is_remote(name) or os.path.isabs(name)


def absolute(path: str) -> str:
    """Make a path absolute; an address stays as it is."""
    return path if is_remote(path) else os.path.abspath(path)


def join(folder: str, name: str) -> str:
    """Join a folder and a name; an absolute name stays as it is."""
    return name if is_remote(name) else os.path.join(folder, name)
