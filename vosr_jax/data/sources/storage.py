"""How sources reach files: what opens, lists or looks for one stands here and nowhere else."""

import glob
import os
from typing import BinaryIO, cast

from vosr_jax.data.sources import remote
from vosr_jax.data.sources.remote import is_remote


def open_file(path: str) -> BinaryIO:
    """A file's bytes, at random; raises OSError."""
    return cast(BinaryIO, remote.RangeFile(path)) if is_remote(path) else open(path, "rb")


def open_to_walk(path: str) -> BinaryIO:
    """A file's bytes for one who goes through all of it; raises OSError."""
    return cast(BinaryIO, remote.open_ahead(path)) if is_remote(path) else open(path, "rb")


def read_file(path: str) -> bytes:
    """A whole file; raises OSError."""
    with open_file(path) as file:
        return file.read()


def exists(path: str) -> bool:
    """Whether there is a file or folder; raises OSError where a bucket does not tell."""
    return remote.kind_of(path) is not None if is_remote(path) else os.path.exists(path)


def is_folder(path: str) -> bool:
    """Whether there is a folder; raises OSError where a bucket does not tell."""
    return remote.kind_of(path) == "directory" if is_remote(path) else os.path.isdir(path)


def names_in(folder: str) -> list[str]:
    """The names of what lies in a folder; raises OSError."""
    return remote.names_in(folder) if is_remote(folder) else os.listdir(folder)


def matching(pattern: str) -> list[str]:
    """The paths that a pattern with *, ? or [] stands for, in any order."""
    return remote.matching(pattern) if is_remote(pattern) else glob.glob(pattern)


def size_and_time(path: str) -> tuple[int, int]:
    """(bytes, time of the last change in nanoseconds), which tell a file's content from another.

    In a bucket the second comes from the checksum that the store states.

    Raises:
      OSError: there is no such file.
    """
    if is_remote(path):
        return remote.size_and_stamp(path)
    about = os.stat(path)
    return about.st_size, about.st_mtime_ns


def is_absolute(name: str) -> bool:
    """Whether a name needs no folder to count from."""
    return is_remote(name) or os.path.isabs(name)


def absolute(path: str) -> str:
    """A path from the root on; an address is one."""
    return path if is_remote(path) else os.path.abspath(path)


def join(folder: str, name: str) -> str:
    """A name in a folder, or the name itself where it is absolute."""
    return name if is_remote(name) else os.path.join(folder, name)
