"""Networks whose arrays are still in files: shapes are known, values are read on demand.

A process of a large job needs only a part of every array. Only that part is read and held.

`sha256_of` identifies a network's weights, in files or in memory.
"""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import jax
import numpy as np
from flax import nnx

from vosr_jax.parameters.blueprint import Blueprint, flatten
from vosr_jax.parameters.safetensors_files import give_back_pages

Network = TypeVar("Network", bound=nnx.Module)
PIECE_BYTES = 64 << 20
# XLA's CPU client does not copy an array that starts at a multiple of this many bytes.
_ALIGNMENT = 64


def _empty(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """An uninitialized array with the alignment that XLA needs."""
    size = math.prod(shape) * dtype.itemsize
    room = np.empty(size + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    return room[start : start + size].view(dtype).reshape(shape)


class HostArray:
    """An array that is read piece by piece.

    Args:
      shape: of the whole.
      dtype: of the pieces.
      read: functions that return the values, often as a view into a memory-mapped file; one for
        the whole, or one per layer of a stack.
      stacked: whether `read` has one entry for every index of the leading axis.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: Any,
        read: Sequence[Callable[[], np.ndarray]],
        *,
        stacked: bool = False,
    ):
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self._read, self._stacked = tuple(read), stacked

    @classmethod
    def of(cls, value: Any, dtype: Any = None) -> "HostArray":
        """Wrap values in memory; those on a device are fetched on demand."""
        return cls(value.shape, dtype or value.dtype, [lambda: np.asarray(value)])

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole."""
        return self.size * self.dtype.itemsize

    def astype(self, dtype: Any) -> "HostArray":
        """Return the same values in another type, without reading them."""
        return HostArray(self.shape, dtype, self._read, stacked=self._stacked)

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        """Read a part into a new array.

        Args:
          index: a slice for each of the leading axes.
        """
        if not self._stacked:
            values = self._read[0]()[index]
            whole = _empty(values.shape, self.dtype)
            whole[...] = values
            return whole
        layers, *inside = index or (slice(None),)
        chosen = self._read[layers]
        rest = [range(size)[s] for size, s in zip(self.shape[1:], inside, strict=False)]
        sides = [len(r) for r in rest] + list(self.shape[1 + len(rest) :])
        part = _empty((len(chosen), *sides), self.dtype)
        for row, read in zip(part, chosen, strict=True):
            row[...] = read()[tuple(inside)]
        return part

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy  # the result is always a copy
        return np.asarray(self[(slice(None),) * len(self.shape)], dtype)

    def pieces(self, most: int = PIECE_BYTES) -> Iterator[np.ndarray]:
        """Yield the array in C order, in parts along the leading axis of at most `most` bytes."""
        if not self.shape:
            yield np.asarray(self)
            return
        rows = max(most // max(self.nbytes // max(self.shape[0], 1), 1), 1)
        for start in range(0, self.shape[0], rows):
            yield self[(slice(start, start + rows),)]


@dataclasses.dataclass(frozen=True)
class HostNetwork(Generic[Network]):
    """A network's structure, with parameters that are read on demand.

    Attributes:
      blueprint: the structure.
      parameters: arrays by dotted path.
    """

    blueprint: Blueprint[Network]
    parameters: Mapping[str, HostArray]

    @classmethod
    def of(cls, network: Network) -> "HostNetwork[Network]":
        """Wrap a network that is already in memory."""
        arrays = {name: HostArray.of(value) for name, value in flatten(network).items()}
        return cls(Blueprint(lambda: network), arrays)

    def network(self) -> Network:
        """Build the network with its parameters on the default device.

        They are read one by one; besides the network the host holds only one of them.
        """
        placed, read = {}, 0
        for name, array in self.parameters.items():
            # Nothing else uses the array, so a CPU device may keep it without a copy.
            placed[name] = jax.device_put(np.asarray(array), may_alias=True)
            read += array.nbytes
            if read > PIECE_BYTES:
                give_back_pages()
                read = 0
        give_back_pages()
        return self.blueprint.merge(placed)


def sha256_of(parameters: Mapping[str, Any]) -> str:
    """Hash of names, shapes and float32 values; it does not depend on the file or its format.

    Args:
      parameters: host arrays, NumPy arrays or device arrays, by dotted path.
    """
    digest = hashlib.sha256()
    for name in sorted(parameters):
        value = parameters[name]
        array = value if isinstance(value, HostArray) else HostArray.of(value)
        digest.update(f"{name} {array.shape}".encode())
        for piece in array.astype(np.float32).pieces():
            digest.update(piece.data)
    return digest.hexdigest()
