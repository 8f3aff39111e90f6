"""Networks whose arrays still lie in files: shapes are known, values are read where asked for.

A process of a large job needs a part of every array only. It asks for that part, and no more than
it is read and held.

`sha256_of` tells one network's weights from another's, wherever they lie.
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
from vosr_jax.parameters.mapping import give_back_pages

Network = TypeVar("Network", bound=nnx.Module)
PIECE_BYTES = 64 << 20
# XLA's CPU client takes an array that begins at a multiple of this without copying it.
_ALIGNMENT = 64


def _empty(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """An array that begins where XLA wants it."""
    size = math.prod(shape) * dtype.itemsize
    room = np.empty(size + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    return room[start : start + size].view(dtype).reshape(shape)


class HostArray:
    """An array that is read piece by piece.

    Args:
      shape: of the whole.
      dtype: that pieces come in.
      read: gives the values, often as a view into a memory-mapped file; for a stack, one a layer.
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
        """Wrap values that are at hand; a device's are fetched when they are asked for."""
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
        """The same values in another type; nothing is read."""
        return HostArray(self.shape, dtype, self._read, stacked=self._stacked)

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        """A part, as an array of its own.

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
        del copy  # it is always one
        return np.asarray(self[(slice(None),) * len(self.shape)], dtype)

    def pieces(self, most: int = PIECE_BYTES) -> Iterator[np.ndarray]:
        """The whole in C order, in parts along the leading axis of at most so many bytes."""
        if not self.shape:
            yield np.asarray(self)
            return
        rows = max(most // max(self.nbytes // max(self.shape[0], 1), 1), 1)
        for start in range(0, self.shape[0], rows):
            yield self[(slice(start, start + rows),)]


@dataclasses.dataclass(frozen=True)
class HostNetwork(Generic[Network]):
    """A network's structure, and where its parameters are to be read.

    Attributes:
      blueprint: the structure.
      parameters: arrays by dotted path.
    """

    blueprint: Blueprint[Network]
    parameters: Mapping[str, HostArray]

    @classmethod
    def of(cls, network: Network) -> "HostNetwork[Network]":
        """A network that is already in memory."""
        arrays = {name: HostArray.of(value) for name, value in flatten(network).items()}
        return cls(Blueprint(lambda: network), arrays)

    def network(self) -> Network:
        """The network with its parameters on the default device.

        They are read one by one, and what the host holds beside them is one of them.
        """
        placed, read = {}, 0
        for name, array in self.parameters.items():
            # The array is nobody else's, so that the CPU's device may keep it as it is.
            placed[name] = jax.device_put(np.asarray(array), may_alias=True)
            read += array.nbytes
            if read > PIECE_BYTES:
                give_back_pages()
                read = 0
        give_back_pages()
        return self.blueprint.merge(placed)


def sha256_of(parameters: Mapping[str, Any]) -> str:
    """Hash of names, shapes and float32 values; the same whatever file they lie in.

    Args:
      parameters: host arrays, numpy's or a device's, by dotted path.
    """
    digest = hashlib.sha256()
    for name in sorted(parameters):
        value = parameters[name]
        array = value if isinstance(value, HostArray) else HostArray.of(value)
        digest.update(f"{name} {array.shape}".encode())
        for piece in array.astype(np.float32).pieces():
            digest.update(piece.data)
    return digest.hexdigest()
