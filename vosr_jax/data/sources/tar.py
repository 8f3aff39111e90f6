"""Tar shards as the WebDataset library writes them, read at random through an index.

A tar file has no table of contents. Its headers are walked once; where each picture lies is
then kept in `<shard>.tar.index.npz` beside the shard or, where that folder may not be written,
in the cache folder.
"""

import functools
import hashlib
import logging
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vosr_jax.data.pictures import UnreadablePicture, is_picture_path
from vosr_jax.data.sources.names import Names
from vosr_jax.data.sources.source import Source, in_memory
from vosr_jax.errors import UserError

_LOG = logging.getLogger(__name__)
_BLOCK = 512
_FORMAT = 1


@dataclass(frozen=True, eq=False)
class TarIndex:
    """Where the pictures of one tar file lie.

    Attributes:
      names: of the members.
      offsets, sizes: [N] int64, bytes.
    """

    names: Names
    offsets: np.ndarray
    sizes: np.ndarray


@dataclass(frozen=True, eq=False)
class TarSource(Source):
    """The pictures of some tar files, one after another.

    Attributes:
      paths: the tar files.
      shards: an index for each.
    """

    paths: tuple[str, ...]
    shards: tuple[TarIndex, ...]

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([len(shard.names) for shard in self.shards])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _place(self, position: int) -> tuple[int, int]:
        if not 0 <= position < len(self):
            raise IndexError(f"record {position} of {len(self)}")
        number = int(np.searchsorted(self._ends, position, side="right"))
        return number, position - int(self._ends[number]) + len(self.shards[number].names)

    def record_name(self, position: int) -> str:
        number, row = self._place(position)
        return f"{self.paths[number]}/{self.shards[number].names[row]}"

    def open(self, position: int) -> BinaryIO:
        number, row = self._place(position)
        shard = self.shards[number]
        size = int(shard.sizes[row])
        try:
            with open(self.paths[number], "rb") as file:
                file.seek(int(shard.offsets[row]))
                data = file.read(size)
        except OSError as error:
            raise UnreadablePicture(error.strerror or str(error)) from error
        if len(data) < size:
            raise UnreadablePicture("the tar file ends inside this picture")
        return in_memory(data)


def tar_source(name: str, paths: Sequence[str], weight: float = 1.0) -> TarSource:
    """The pictures of some tar files, in the order given and that of their members.

    Raises:
      UserError: a file that cannot be read or is no plain tar, or there is no picture.
    """
    shards = tuple(load_index(path) for path in paths)
    source = TarSource(name, weight, tuple(map(str, paths)), shards)
    if not len(source):
        raise UserError(f"data.sources: the tar files of {name} hold no pictures")
    return source


def load_index(path: str) -> TarIndex:
    """The index of a tar file: the kept one if it is of this very file, else a new one, kept."""
    try:
        about = os.stat(path)
    except OSError as error:
        raise UserError(f"data.sources: {path} cannot be read ({error.strerror})") from error
    stamp = np.array([_FORMAT, about.st_size, about.st_mtime_ns], np.int64)
    places = (Path(f"{path}.index.npz"), _cache_folder() / _cache_name(path))
    for place in places:
        kept = _read_index(place, stamp)
        if kept is not None:
            return kept
    index = make_index(path)
    for place in places:
        if _write_index(place, stamp, index):
            break
    return index


def make_index(path: str) -> TarIndex:
    """Walk through a tar file's headers.

    Of members that differ in the suffix alone, which make one WebDataset sample, the first
    picture counts. A file that is cut short is used as far as it goes, with a warning.

    Raises:
      UserError: the file cannot be read or is no plain tar.
    """
    names, offsets, sizes = [], [], []
    key, end = None, 0
    try:
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            try:
                while (member := tar.next()) is not None:
                    end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
                    sample = _sample_key(member.name)
                    if member.isfile() and is_picture_path(member.name) and sample != key:
                        names.append(member.name)
                        offsets.append(member.offset_data)
                        sizes.append(member.size)
                        key = sample
                    # The library keeps every header that it has seen.
                    tar.members = []  # type: ignore[attr-defined]
            except tarfile.ReadError:
                pass
            file.seek(end)
            whole = file.read(_BLOCK) == bytes(_BLOCK)
    except (OSError, tarfile.TarError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"data.sources: {path} cannot be read as a tar file ({reason}); write it again, "
            "uncompressed"
        ) from error
    if not whole:
        _LOG.warning("%s ends in the middle; what came after byte %d is lost", path, end)
    return TarIndex(Names(names), np.array(offsets, np.int64), np.array(sizes, np.int64))


def _sample_key(name: str) -> str:
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.split('.')[0]}"


def _cache_folder() -> Path:
    """`VOSR_CACHE`, or the user's cache folder."""
    user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get("VOSR_CACHE") or os.path.join(user, "vosr_jax"))


def _cache_name(path: str) -> str:
    return hashlib.sha256(os.path.abspath(path).encode()).hexdigest()[:32] + ".index.npz"


def _read_index(place: Path, stamp: np.ndarray) -> TarIndex | None:
    try:
        with np.load(place) as kept:
            if not np.array_equal(kept["stamp"], stamp):
                return None
            names = Names.from_arrays(kept["text"], kept["ends"])
            return TarIndex(names, kept["offsets"], kept["sizes"])
    except (OSError, ValueError, KeyError, EOFError):
        # None there, or one that another program damaged: it is made again.
        return None


def _write_index(place: Path, stamp: np.ndarray, index: TarIndex) -> bool:
    text, ends = index.names.arrays()
    part = place.with_name(f"{place.name}.{os.getpid()}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.savez(
                file, stamp=stamp, text=text, ends=ends, offsets=index.offsets, sizes=index.sizes
            )
        part.replace(place)
    except OSError:
        part.unlink(missing_ok=True)
        return False
    return True
