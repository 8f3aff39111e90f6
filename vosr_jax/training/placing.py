"""Put host arrays on the devices, without communication between processes.

`jax.device_put` onto devices of several processes first compares the values over all of them,
which gathers every array whole on every device. Here each process reads the shards of its own
devices, each once, and places them. The caller ensures that all processes read the same file.

`Prefetch` places batches on the devices before the step needs them.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding

from vosr_jax.parameters.lazy import HostArray


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
