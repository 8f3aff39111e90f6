"""Random draws by sample: a row's draws depend only on the seed and the row's index.

A sample keeps its noise and time for every mesh, gradient accumulation and batch size.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

_ROWS, _BATCH = 0, 1


def index_words(index: np.ndarray) -> np.ndarray:
    """Split int64 [B] sample positions into uint32 [B, 2] (high, low): devices hold 32 bits."""
    index = np.asarray(index, np.uint64)
    return np.stack([index >> np.uint64(32), index & np.uint64(0xFFFFFFFF)], 1).astype(np.uint32)


# Two halves of a sample position below 2^48; a float32 holds each exactly.
_COLUMNS = ("index_high_rows", "index_low_rows")
_COLUMN_BITS = 24


def index_columns(words: Array) -> dict[str, Array]:
    """Convert sample positions to two float32 columns [B], by name.

    The compiler sums float columns over the devices together with a step's other metrics; integers
    would need a separate collective.

    Args:
      words: uint32 [B, 2] from `index_words`, positions below 2^48.
    """
    high, low = words[:, 0], words[:, 1]
    columns = (high << (32 - _COLUMN_BITS)) | (low >> _COLUMN_BITS), low & 0xFFFFFF
    return {name: x.astype(jnp.float32) for name, x in zip(_COLUMNS, columns, strict=True)}


def columns_index(columns: Mapping[str, Array]) -> np.ndarray:
    """Recover int64 [B] sample positions from the columns of `index_columns`; ignore others."""
    high, low = (np.asarray(columns[name]).astype(np.int64) for name in _COLUMNS)
    return (high << _COLUMN_BITS) | low


def row_keys(key: Array, index: Array) -> Array:
    """Make one key per row.

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
    """The key for draws that are made once per batch."""
    return jax.random.fold_in(jax.random.fold_in(key, _BATCH), step)


def draw_rows(keys: Array, purpose: int, draw: Callable[[Array], Array]) -> Array:
    """draw(key) for every row's key, with a separate stream for each purpose."""
    return jax.vmap(lambda key: draw(jax.random.fold_in(key, purpose)))(keys)


def normal_rows(keys: Array, purpose: int, shape: tuple[int, ...]) -> Array:
    """Standard normal draws [B, *shape], float32."""
    return draw_rows(keys, purpose, lambda key: jax.random.normal(key, shape, jnp.float32))
