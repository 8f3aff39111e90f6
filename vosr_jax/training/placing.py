"""Arrays of the host to their places on the devices, without a word between processes.

`jax.device_put` onto devices of several processes first compares the values over all of them,
which gathers every array whole on every device. Here each process reads the parts of its own
devices, each once, and hands them over; that all read the same file is for whoever names it.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding

from vosr_jax.parameters.host import HostArray


def place(tree: Any, shardings: Any) -> Any:
    """Lay host arrays over the devices.

    Args:
      tree: of `HostArray`, numpy arrays or arrays of this process's devices; the same values in
        every process.
      shardings: the same tree of shardings; of other processes' devices nothing is read.

    Returns:
      The tree of global arrays. One leaf after another is finished, so that the host holds no
      more than one leaf's parts.
    """
    return jax.tree.map(_placed, tree, shardings)


def _placed(value: Any, sharding: Sharding) -> jax.Array:
    if isinstance(value, jax.Array):
        value = np.asarray(value)
    parts: dict[tuple, np.ndarray] = {}

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None  # that is for values without a shape
        key = tuple((s.start, s.stop) for s in index)
        if key not in parts:
            own = isinstance(value, HostArray)
            # A CPU device may take the memory as it is, so it must be nobody else's.
            parts[key] = value[index] if own else np.array(value[index], order="C")
        return parts[key]

    array = jax.make_array_from_callback(value.shape, sharding, part, dtype=value.dtype)
    return jax.block_until_ready(array)
