"""Randomness follows the sample: a row's draws depend on the seed and its index alone.

Whatever the mesh, the accumulation or the batch size, a sample keeps its noise and time.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

_ROWS, _BATCH = 0, 1


def index_words(index: np.ndarray) -> np.ndarray:
    """int64 [B] sample positions as uint32 [B, 2] (high, low), since devices hold 32 bits."""
    index = np.asarray(index, np.uint64)
    return np.stack([index >> np.uint64(32), index & np.uint64(0xFFFFFFFF)], 1).astype(np.uint32)


def row_keys(key: Array, index: Array) -> Array:
    """One key a row.

    Args:
      key: the run's key, the same at every step.
      index: uint32 [B, 2] from `index_words`.

    Returns:
      [B] keys.
    """
    rows = jax.random.fold_in(key, _ROWS)
    return jax.vmap(lambda words: jax.random.fold_in(jax.random.fold_in(rows, words[0]), words[1]))(
        index
    )


def batch_key(key: Array, step: Array) -> Array:
    """The key of what the method draws once a batch."""
    return jax.random.fold_in(jax.random.fold_in(key, _BATCH), step)


def draw_rows(keys: Array, purpose: int, draw: Callable[[Array], Array]) -> Array:
    """draw(key) for every row's key, with a stream of its own for every purpose."""
    return jax.vmap(lambda key: draw(jax.random.fold_in(key, purpose)))(keys)


def normal_rows(keys: Array, purpose: int, shape: tuple[int, ...]) -> Array:
    """Standard normal draws [B, *shape], float32."""
    return draw_rows(keys, purpose, lambda key: jax.random.normal(key, shape, jnp.float32))
