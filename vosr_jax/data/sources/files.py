"""Image files of a folder tree, or from a list of names."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vosr_jax.data.pictures import UnreadablePicture, is_picture_path
from vosr_jax.data.sources.source import Names, Source
from vosr_jax.data.sources.storage import (
    exists,
    is_folder,
    is_remote,
    join,
    open_file,
    remote_names_below,
)
from vosr_jax.errors import UserError


@dataclass(frozen=True, eq=False)
class FileSource(Source):
    """Image files, one record each.

    Attributes:
      folder: the folder that the names are relative to.
      files: names relative to folder, in a fixed order.
      listed: whether a text file names them.
    """

    folder: str
    files: Sequence[str]
    listed: bool = False

    def __len__(self) -> int:
        return len(self.files)

    def details(self) -> str:
        relative = self.listed and self.folder
        return f", relative paths counted from {self.folder}" if relative else ""

    def record_name(self, position: int) -> str:
        return join(self.folder, self.files[position])

    def open(self, position: int) -> BinaryIO:
        try:
            return open_file(self.record_name(position))
        except (OSError, ValueError) as error:
            raise UnreadablePicture(getattr(error, "strerror", None) or str(error)) from error


def folder_source(folder: str, weight: float = 1.0) -> FileSource:
    """Make a source of all images below a folder, sorted by path; links are followed.

    Raises:
      UserError: there is no such folder, it or one below may not be read, or there is no image.
    """
    if is_remote(folder):
        return _remote_folder_source(folder, weight)
    if not os.path.exists(folder):
        raise UserError(f"data.sources: there is no folder {folder}; correct the path")
    if not os.path.isdir(folder):
        raise UserError(f"data.sources: {folder} is a file; name the folder that holds pictures")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise UserError(f"data.sources: {folder} may not be read; change its permissions")
    # Sort by code points: the order must not depend on the machine's locale.
    files = Names(sorted(_pictures_below(folder)))
    _require_some(files, folder)
    return FileSource(folder, weight, str(folder), files)


def _remote_folder_source(folder: str, weight: float) -> FileSource:
    if exists(folder) and not is_folder(folder):
        raise UserError(f"data.sources: {folder} is a file; name the folder that holds pictures")
    files = Names(sorted(name for name in remote_names_below(folder) if is_picture_path(name)))
    _require_some(files, folder)
    return FileSource(folder, weight, folder, files)


def _require_some(files: Names, folder: str) -> None:
    if not files:
        raise UserError(
            f"data.sources: no photographs in {folder} or below it; put .jpg, .png, .webp or "
            ".tif files there, or name another folder"
        )


def _pictures_below(folder: str) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise UserError(
            f"data.sources: {error.filename} may not be read ({error.strerror}); change its "
            "permissions, or name another folder"
        ) from error

    visited = set()
    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        about = os.stat(parent)
        if (about.st_dev, about.st_ino) in visited:
            # Stop here: a link to a folder above would be followed for ever.
            folders.clear()
            continue
        visited.add((about.st_dev, about.st_ino))
        folders.sort()
        inside = os.path.relpath(parent, folder)
        prefix = "" if inside == "." else inside + os.sep
        yield from (prefix + name for name in names if is_picture_path(name))


def file_source(name: str, paths: Sequence[Path | str], weight: float = 1.0) -> FileSource:
    """Make a source of files in the given order."""
    return FileSource(name, weight, "", Names(str(path) for path in paths))
