"""Tar shards as the WebDataset library writes them, with random access through an index.

A tar file has no table of contents. Its headers are walked once, and tar_index.py keeps the
position of each image.
"""

import functools
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from vosr_jax.data.pictures import UnreadablePicture
from vosr_jax.data.sources.source import Source, in_memory
from vosr_jax.data.sources.storage import is_remote, open_file
from vosr_jax.data.sources.tar_index import TarIndex, load_index
from vosr_jax.errors import UserError

# Number of indexes made in parallel in a bucket; each takes some megabytes.
_AT_ONCE = 8


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
