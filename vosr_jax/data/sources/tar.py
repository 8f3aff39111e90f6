"""Tar shards as the WebDataset library writes them, with random access through an index.

A tar file has no table of contents. Its headers are walked once, and the index keeps the position
of each image. It is in `<shard>.tar.index.npz` beside the shard or, if that folder cannot be
written, in the cache folder. It is made again when the tar file changes.
"""

import functools
import hashlib
import io
import logging
import random
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from vosr_jax.compilation_cache import user_cache
from vosr_jax.data.pictures import UnreadablePicture, is_picture_path
from vosr_jax.data.sources.members import first_pictures
from vosr_jax.data.sources.source import Names, Source, in_memory
from vosr_jax.data.sources.storage import (
    absolute,
    is_remote,
    open_file,
    open_to_walk,
    read_file,
    size_and_time,
)
from vosr_jax.errors import UserError
from vosr_jax.files import whole_file

# Number of indexes made in parallel in a bucket; each takes some megabytes.
_AT_ONCE = 8
_LOG = logging.getLogger(__name__)
_BLOCK = 512
# Version 2 changed which of several images of one name are used.
_FORMAT = 2


@dataclass(frozen=True, eq=False)
class TarIndex:
    """Positions of the images in one tar file.

    Attributes:
      names: names of the members.
      offsets, sizes: [N] int64, bytes.
      counts: [2] int64, numbers of the files in the tar and of the images that are not used.
    """

    names: Names
    offsets: np.ndarray
    sizes: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True, eq=False)
class TarSource(Source):
    """Images of tar files, one file after another.

    Attributes:
      paths: the tar files.
      shards: the index of each tar file.
    """

    paths: tuple[str, ...]
    shards: tuple[TarIndex, ...]

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([len(shard.names) for shard in self.shards])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def details(self) -> str:
        files, others = (sum(int(shard.counts[k]) for shard in self.shards) for k in (0, 1))
        text = f" of {files:,} files in {len(self.paths):,} tar files"
        if others:
            text += f"; {others:,} more pictures belong to samples whose first picture is taken"
        return text

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
            with open_file(self.paths[number]) as file:
                file.seek(int(shard.offsets[row]))
                data = file.read(size)
        except OSError as error:
            raise UnreadablePicture(error.strerror or str(error)) from error
        if len(data) < size:
            raise UnreadablePicture("the tar file ends inside this picture")
        return in_memory(data)


def tar_source(name: str, paths: Sequence[str], weight: float = 1.0) -> TarSource:
    """Make a source of tar files' images, in the given order and that of their members.

    Raises:
      UserError: a file cannot be read or is not a plain tar, or there is no image.
    """
    shards = tuple(_indexes(paths))
    source = TarSource(name, weight, tuple(map(str, paths)), shards)
    if not len(source):
        raise UserError(f"data.sources: the tar files of {name} hold no pictures")
    return source


def _indexes(paths: Sequence[str]) -> list[TarIndex]:
    if not any(map(is_remote, paths)):
        return [load_index(path) for path in paths]
    # In parallel, since each waits for the network, and in an order that differs per process. An
    # index is saved beside its shard, so hosts that start together share the work.
    order = list(range(len(paths)))
    random.SystemRandom().shuffle(order)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = dict(zip(order, pool.map(lambda n: load_index(paths[n]), order), strict=True))
    return [found[number] for number in range(len(paths))]


def load_index(path: str) -> TarIndex:
    """Load a tar file's saved index if it is of this very file, else make and save a new one.

    Raises:
      UserError: the file cannot be read or is not a plain tar.
    """
    try:
        stamp = np.array([_FORMAT, *size_and_time(path)], np.int64)
    except OSError as error:
        raise UserError(f"data.sources: {path} cannot be read ({error.strerror})") from error
    places = _places(path)
    for place in places:
        kept = _read_index(place, stamp)
        if kept is not None:
            return kept
    index = make_index(path)
    if not any(_write_index(place, stamp, index) for place in places):
        _LOG.warning(
            "the index of %s can be written neither beside it nor into %s, so every start makes "
            "it again; set VOSR_CACHE to a folder that can be written",
            path,
            user_cache(),
        )
    return index


def make_index(path: str) -> TarIndex:
    """Walk through a tar file's headers.

    `first_pictures` decides which images count. A truncated file is used up to the cut, with a
    warning.

    Raises:
      UserError: the file cannot be read or is not a plain tar.
    """
    names: list[str] = []
    places: list[tuple[int, int]] = []
    end = 0
    try:
        with open_to_walk(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            try:
                while (member := tar.next()) is not None:
                    end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
                    if member.isfile():
                        names.append(member.name)
                        places.append((member.offset_data, member.size))
                    # Free memory: the library keeps every header that it has read.
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
    taken = first_pictures(names)
    others = sum(map(is_picture_path, names)) - len(taken)
    table = np.array([places[number] for number in taken], np.int64).reshape(-1, 2)
    kept = Names(names[number] for number in taken)
    return TarIndex(kept, table[:, 0], table[:, 1], np.array([len(names), others], np.int64))


def _places(path: str) -> tuple[str, ...]:
    """Possible paths of an index, the best first."""
    return f"{path}.index.npz", str(user_cache() / _cache_name(path))


def _cache_name(path: str) -> str:
    return hashlib.sha256(absolute(path).encode()).hexdigest()[:32] + ".index.npz"


def _read_index(place: str, stamp: np.ndarray) -> TarIndex | None:
    try:
        with np.load(io.BytesIO(read_file(place))) as kept:
            if not np.array_equal(kept["stamp"], stamp):
                return None
            names = Names.from_arrays(kept["text"], kept["ends"])
            index = TarIndex(names, kept["offsets"], kept["sizes"], kept["counts"])
    # The index is missing, truncated or damaged (zip files raise errors of many kinds): make it
    # again.
    except Exception:
        return None
    whole = len(names) == len(index.offsets) == len(index.sizes) and len(index.counts) == 2
    return index if whole else None


def _write_index(place: str, stamp: np.ndarray, index: TarIndex) -> bool:
    """Write an index; returns whether that succeeded."""
    text, ends = index.names.arrays()
    arrays: dict[str, Any] = {"offsets": index.offsets, "sizes": index.sizes}
    arrays |= {"stamp": stamp, "text": text, "ends": ends, "counts": index.counts}
    try:
        with whole_file(place) as part, part.open("wb") as file:
            np.savez(file, **arrays)
    except UserError:
        return False
    return True
