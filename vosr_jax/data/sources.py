"""Where pictures come from: random access by number, the same order on every machine."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vosr_jax.data.photographs import scikit_image_photographs
from vosr_jax.data.pictures import is_picture_path, read_picture
from vosr_jax.errors import UserError


@dataclass(frozen=True)
class FileSource:
    """Picture files, one record each.

    Attributes:
      name: how messages call the source.
      folder: what the files' names are relative to.
      files: names relative to folder, in a fixed order.
      weight: share of the samples, relative to the other sources' weights.
    """

    name: str
    folder: str
    files: tuple[str, ...]
    weight: float = 1.0

    def __len__(self) -> int:
        return len(self.files)

    def record_name(self, position: int) -> str:
        """The path of a record, for messages."""
        return os.path.join(self.folder, self.files[position])

    def read(self, position: int) -> np.ndarray:
        """Decode a record: [H, W, 3] uint8; raises UnreadablePicture."""
        return read_picture(self.record_name(position))


def folder_source(folder: str, weight: float = 1.0) -> FileSource:
    """Every picture below a folder, links followed, sorted by path.

    Raises:
      UserError: there is no such folder, it or one below may not be read, or there is no picture.
    """
    if not os.path.exists(folder):
        raise UserError(f"data.sources: there is no folder {folder}; correct the path")
    if not os.path.isdir(folder):
        raise UserError(f"data.sources: {folder} is a file; name the folder that holds pictures")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise UserError(f"data.sources: {folder} may not be read; change its permissions")
    files = []

    def refuse(error: OSError) -> None:
        raise UserError(
            f"data.sources: {error.filename} may not be read ({error.strerror}); change its "
            "permissions, or name another folder"
        ) from error

    for parent, _, names in os.walk(folder, onerror=refuse, followlinks=True):
        inside = os.path.relpath(parent, folder)
        prefix = "" if inside == "." else inside + os.sep
        files += [prefix + name for name in names if is_picture_path(name)]
    if not files:
        raise UserError(
            f"data.sources: no photographs in {folder} or below it; put .jpg, .png, .webp or "
            ".tif files there, or name another folder"
        )
    # By code points, so that the order does not depend on the machine's language.
    return FileSource(folder, str(folder), tuple(sorted(files)), weight)


def file_source(name: str, paths: Sequence[Path], weight: float = 1.0) -> FileSource:
    """Some files in the order given."""
    return FileSource(name, "", tuple(str(path) for path in paths), weight)


def parse_sources(text: str | None) -> tuple[FileSource, ...]:
    """Open what `data.sources` names.

    Args:
      text: `path[:weight],...`: folders, each with its share of the samples (1 where it is
        left out). None or empty: scikit-image's photographs.

    Raises:
      UserError: a path or weight that is none.
    """
    if not text or not text.strip():
        return (file_source("scikit-image", scikit_image_photographs()),)
    return tuple(folder_source(*_path_and_weight(part)) for part in text.split(","))


def _path_and_weight(part: str) -> tuple[str, float]:
    part = part.strip()
    path, colon, weight_text = part.rpartition(":")
    if not part:
        raise UserError("data.sources: there is nothing between two commas; write path[:weight],…")
    if not colon or os.path.exists(part):
        return os.path.expanduser(part), 1.0
    try:
        weight = float(weight_text)
    except ValueError:
        return os.path.expanduser(part), 1.0
    if not 0 < weight < float("inf"):
        raise UserError(f"data.sources: the weight of {path} is {weight_text}; it must be above 0")
    return os.path.expanduser(path), weight
