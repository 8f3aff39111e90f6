"""Tar shards as the WebDataset library writes them, read at random through an index.

A tar file has no table of contents. Its headers are walked once; tar_index.py keeps where each
picture lies.
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

# Indexes that are made at once in a bucket; each holds some megabytes.
_AT_ONCE = 8


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
    """The pictures of some tar files, in the order given and that of their members.

    Raises:
      UserError: a file that cannot be read or is no plain tar, or there is no picture.
    """
    shards = tuple(_indexes(paths))
    source = TarSource(name, weight, tuple(map(str, paths)), shards)
    if not len(source):
        raise UserError(f"data.sources: the tar files of {name} hold no pictures")
    return source


def _indexes(paths: Sequence[str]) -> list[TarIndex]:
    if not any(map(is_remote, paths)):
        return [load_index(path) for path in paths]
    # Several at once, since each waits for the network; and in an order of this process's own: an
    # index is kept beside its shard, so that hosts which start together share the work.
    order = list(range(len(paths)))
    random.SystemRandom().shuffle(order)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = dict(zip(order, pool.map(lambda n: load_index(paths[n]), order), strict=True))
    return [found[number] for number in range(len(paths))]
