"""Put host arrays on the devices, without communication between processes.

`jax.device_put` onto devices of several processes first compares the values over all of them,
which gathers every array whole on every device. Here each process reads the shards of its own
devices, each once, and places them. The caller ensures that all processes read the same file.

Of a batch, each process loads only the rows of its own devices. `Prefetch` places batches on the
devices before the step needs them.
"""

import functools
import math
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, Sharding
from jax.sharding import PartitionSpec as P

from vosr_jax.errors import UserError
from vosr_jax.parameters.lazy import HostArray
from vosr_jax.training.sharding import AXES, BATCH_AXES, batch_sharding


def place(tree: Any, shardings: Any) -> Any:
    """Put host arrays on the devices.

    Args:
      tree: of `HostArray`, numpy arrays or arrays of this process's devices; the same values on
        every process.
      shardings: a tree of the same structure; shards of other processes' devices are not read.

    Returns:
      The tree of global arrays. Leaves are finished one after another, so the host holds no more
      than one leaf's shards.
    """
    return jax.tree.map(_placed, tree, shardings)


def _placed(value: Any, sharding: Sharding) -> jax.Array:
    if isinstance(value, jax.Array):
        value = np.asarray(value)
    parts: dict[tuple, np.ndarray] = {}

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None  # None is for values without a shape
        key = tuple((s.start, s.stop) for s in index)
        if key not in parts:
            own = isinstance(value, HostArray)
            # A CPU device may use this memory without a copy, so nothing else may own it.
            parts[key] = value[index] if own else np.array(value[index], order="C")
        return parts[key]

    array = jax.make_array_from_callback(value.shape, sharding, part, dtype=value.dtype)
    return jax.block_until_ready(array)


def process_rows(mesh: Mesh, batch_size: int, process_index: int) -> np.ndarray:
    """Rows of the global batch that a process loads, according to the sharding.

    Args:
      mesh: from `make_mesh`.
      batch_size: rows of a global batch; a multiple of the mesh's data * fsdp.
      process_index: of the process.

    Returns:
      [rows] int64, ascending, each row of the process's devices once: the order that `put_batch`
      expects. If tensor parallelism crosses hosts, a row on several processes belongs to each of
      them. Empty for a process without devices.

    Raises:
      UserError: the rows do not divide evenly over the devices.
    """
    rows = [np.arange(*part, dtype=np.int64) for part in _parts(mesh, batch_size, process_index)]
    return np.concatenate(rows) if rows else np.zeros(0, np.int64)


@functools.lru_cache(maxsize=16)
def _parts(mesh: Mesh, batch_size: int, process_index: int) -> list[tuple[int, int]]:
    """(first row, row after the last) of each distinct shard on a process's devices, ascending."""
    devices = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    if batch_size % devices:
        raise UserError(
            f"a batch of {batch_size} rows does not lie evenly over mesh.data * mesh.fsdp = "
            f"{devices}; set train.batch_size to a multiple of it"
        )
    places: Mapping[Any, Any] = batch_sharding(mesh).devices_indices_map((batch_size,))
    return sorted(
        {
            rows.indices(batch_size)[:2]
            for device, (rows,) in places.items()
            if device.process_index == process_index
        }
    )


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Put this process's rows into global arrays that are sharded over the batch axes.

    Args:
      batch: arrays whose first axis has the rows of `process_rows`, in that order.
      mesh: from `make_mesh`.
    """
    sharding = batch_sharding(mesh)
    return {name: _placed_rows(rows, sharding) for name, rows in batch.items()}


def _placed_rows(rows: np.ndarray, sharding: NamedSharding) -> jax.Array:
    mesh, own = sharding.mesh, jax.process_index()
    devices = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    # All devices hold the same number of rows, so this process's rows give the batch size.
    size = len(rows) // len(_parts(mesh, devices, own)) * devices
    starts = [start for start, _ in _parts(mesh, size, own)]

    def part(index: Any) -> np.ndarray:
        start, stop, _ = index[0].indices(size)
        at = starts.index(start) * (stop - start)
        return rows[at : at + stop - start]

    return jax.make_array_from_callback((size, *rows.shape[1:]), sharding, part)


def put_notes(notes: np.ndarray, mesh: Mesh) -> jax.Array:
    """Put this process's counts into a global array beside those of all other processes.

    Args:
      notes: [K] int32.
      mesh: from `make_mesh`.

    Returns:
      [devices, K], one row per device. A process's first device holds its notes, its other
      devices zeros; the sum over rows is the sum over processes.
    """
    own = jax.process_index()
    first = next(i for i, device in enumerate(mesh.devices.flat) if device.process_index == own)

    def row(index: Any) -> np.ndarray:
        number = index[0].indices(mesh.size)[0]
        return notes[None] if number == first else np.zeros_like(notes[None])

    shape = (mesh.size, len(notes))
    return jax.make_array_from_callback(shape, NamedSharding(mesh, P(AXES)), row)


class Prefetch:
    """Place batches on the devices in a background thread; close it, or use a `with` block.

    Args:
      batches: an iterator; an error that it raises is raised here, after the batches before it.
      place: puts a batch on the devices.
      depth: number of batches kept ready.
    """

    def __init__(self, batches: Iterator, place: Callable[[Any], Any], depth: int = 2):
        self._ready: queue.Queue = queue.Queue(depth)
        self._closed = threading.Event()
        self._work = (batches, place)
        self._thread = threading.Thread(target=self._fill, daemon=True)
        self._thread.start()

    def _fill(self) -> None:
        batches, place = self._work
        try:
            for batch in batches:
                if not self._put((place(batch), None)):
                    return
            self._put((None, StopIteration()))
        except BaseException as error:
            self._put((None, error))

    def _put(self, item: tuple) -> bool:
        """Wait for room and put an item; return False if closed meanwhile."""
        while not self._closed.is_set():
            try:
                self._ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self) -> "Prefetch":
        return self

    def __next__(self) -> Any:
        """The next batch on the devices."""
        batch, error = self._ready.get()
        if error is not None:
            # Nothing follows, and another next() must not wait for ever.
            self._ready.put((None, error))
            raise error
        return batch

    def close(self) -> None:
        """End the thread; the iterator of batches stays open."""
        self._closed.set()
        self._thread.join()

    def __enter__(self) -> "Prefetch":
        return self

    def __exit__(self, *_) -> None:
        self.close()
