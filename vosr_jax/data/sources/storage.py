"""File access of the sources: all code that opens, lists or looks for files is here."""

import glob
import os
from typing import BinaryIO, cast

from vosr_jax.data.sources import remote
from vosr_jax.data.sources.remote import is_remote


def open_file(path: str) -> BinaryIO:
    """Open a file for random access; raises OSError."""
    return cast(BinaryIO, remote.RangeFile(path)) if is_remote(path) else open(path, "rb")


def open_to_walk(path: str) -> BinaryIO:
    """Open a file for a sequential walk through all of it; raises OSError."""
    return cast(BinaryIO, remote.open_ahead(path)) if is_remote(path) else open(path, "rb")


def read_file(path: str) -> bytes:
    """Read a whole file; raises OSError."""
    with open_file(path) as file:
        return file.read()


def exists(path: str) -> bool:
    """Whether there is a file or folder; raises OSError if a bucket does not answer."""
    return remote.kind_of(path) is not None if is_remote(path) else os.path.exists(path)


def is_folder(path: str) -> bool:
    """Whether there is a folder; raises OSError if a bucket does not answer."""
    return remote.kind_of(path) == "directory" if is_remote(path) else os.path.isdir(path)


def names_in(folder: str) -> list[str]:
    """List the names in a folder; raises OSError."""
    return remote.names_in(folder) if is_remote(folder) else os.listdir(folder)


def matching(pattern: str) -> list[str]:
    """List the paths that match a pattern with *, ? or [], in any order."""
    return remote.matching(pattern) if is_remote(pattern) else glob.glob(pattern)


def size_and_time(path: str) -> tuple[int, int]:
    """Return (bytes, modification time in nanoseconds), which identify a file's content.

    In a bucket the second value comes from the checksum that the store states.

    Raises:
      OSError: there is no such file.
    """
    if is_remote(path):
        return remote.size_and_stamp(path)
    about = os.stat(path)
    return about.st_size, about.st_mtime_ns


def is_absolute(name: str) -> bool:
    """Whether a name is an absolute path or an address."""
    return is_remote(name) or os.path.isabs(name)


def absolute(path: str) -> str:
    """Make a path absolute; an address stays as it is."""
    return path if is_remote(path) else os.path.abspath(path)


def join(folder: str, name: str) -> str:
    """Join a folder and a name; an absolute name stays as it is."""
    return name if is_remote(name) else os.path.join(folder, name)
