"""Two-dimensional rotary position embedding, with positions rescaled to the training grid."""

import jax.numpy as jnp
import numpy as np
from jax import Array

# (cosine, sine), each [N, head_width], or [B, N, head_width] if each row has its own table.
RotaryTable = tuple[np.ndarray, np.ndarray] | tuple[Array, Array]


def rotary_table(
    grid: tuple[int, int], training_side: int, head_width: int, *, rescale: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines for every token of a grid.

    Channels are interleaved pairs. The first half of a head turns with the row, the second with
    the column. An axis of n tokens gets the positions index / n * training_side; on the training
    grid that is the index. (The official models/lightningdit.py covers squares; here a rectangle
    rescales each axis on its own.)

    Args:
      grid: (rows, columns) in tokens.
      training_side: side of the square training grid in tokens.
      head_width: channels of one head, divisible by 4.
      rescale: False keeps positions at their integer index.

    Returns:
      (cosine, sine), each [rows * columns, head_width] float32.
    """
    half = head_width // 2
    frequencies = 10_000.0 ** -(np.arange(0, half, 2, dtype=np.float64) / half)

    def angles(length: int) -> np.ndarray:
        scale = training_side / length if rescale else 1.0
        return np.repeat(np.arange(length)[:, None] * scale * frequencies, 2, axis=1)

    rows, columns = grid
    table = np.concatenate(
        [
            np.broadcast_to(angles(rows)[:, None], (rows, columns, half)),
            np.broadcast_to(angles(columns)[None], (rows, columns, half)),
        ],
        axis=-1,
    ).reshape(rows * columns, head_width)
    return np.cos(table).astype(np.float32), np.sin(table).astype(np.float32)


def rotary_table_within(
    grid: tuple[int, int], extent: Array, training_side: int, head_width: int, *, rescale: bool
) -> tuple[Array, Array]:
    """The tables of smaller grids that lie in the upper left of a common grid.

    Args:
      grid: (rows, columns) in tokens.
      extent: [B, 2] int32, rows and columns of each smaller grid.
      training_side, head_width, rescale: as in `rotary_table`.

    Returns:
      (cosine, sine), each [B, rows * columns, head_width] float32; meaningless for tokens beyond
      the extent.
    """
    half = head_width // 2
    exact = 10_000.0 ** -(np.arange(0, half, 2, dtype=np.float64) / half)
    frequencies = jnp.asarray(np.repeat(exact, 2), jnp.float32)
    rows, columns = grid

    def angles(length: int, unpadded: Array) -> Array:
        scale = training_side / unpadded.astype(jnp.float32) if rescale else jnp.ones(len(unpadded))
        position = jnp.arange(length, dtype=jnp.float32) * scale[:, None]
        return position[:, :, None] * frequencies

    shape = (len(extent), rows, columns, half)
    table = jnp.concatenate(
        [
            jnp.broadcast_to(angles(rows, extent[:, 0])[:, :, None], shape),
            jnp.broadcast_to(angles(columns, extent[:, 1])[:, None], shape),
        ],
        axis=-1,
    ).reshape(len(extent), rows * columns, head_width)
    return jnp.cos(table), jnp.sin(table)


def rotate(x: Array, table: RotaryTable) -> Array:
    """Turn queries or keys by their position.

    Args:
      x: [B, N, heads, head_width].
      table: from `rotary_table` or `rotary_table_within`, for the same N and head_width.

    Returns:
      The turned x, same shape and dtype; computed in float32.
    """
    cosine, sine = (jnp.asarray(part)[..., None, :] for part in table)
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
    quarter_turn = jnp.stack([-pairs[..., 1], pairs[..., 0]], -1).reshape(x.shape)
    return (x.astype(jnp.float32) * cosine + quarter_turn * sine).astype(x.dtype)
