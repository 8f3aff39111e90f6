"""A latent of any size as overlapping tiles of one shape.

Every evaluation runs the network on the tiles, some at a time, and blends the velocities with
Gaussian weights: at every sampling step, so that neighbours agree from the noise on (the
official scripts' scheme).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vosr_jax.restoration.tiling import TileGrid, gaussian_weights


class TiledLatent:
    """The parts of a latent [B, h, w, C] that a sampler asks about one after another.

    Args:
      grid: the tiles.
      tile_batch: tiles in one part; a last, smaller one is filled up with tiles that carry no
        weight. A part has tile_batch * B rows, tile by tile.
      latent_hw: the latent's height and width.
    """

    def __init__(self, grid: TileGrid, tile_batch: int, latent_hw: tuple[int, int]):
        self._side, self._tile_batch = grid.side, tile_batch
        self._starts, self._live = _batches(grid, tile_batch)
        self._order = np.minimum(np.arange(self._live.size), len(grid.starts) - 1)
        self._weights = gaussian_weights(grid.side, grid.side)[None, :, :, None]
        self._mass = np.zeros((1, *latent_hw, 1), np.float32)
        for row, column in grid.starts:
            self._mass[:, row : row + grid.side, column : column + grid.side] += self._weights

    @property
    def count(self) -> int:
        """Parts of one latent."""
        return len(self._starts)

    def tokens(self, visual_tokens: Array) -> Array:
        """Every tile's tokens [B, tiles, N, D], in the order of `grid.starts`, part by part."""
        ordered = jnp.moveaxis(visual_tokens, 0, 1)[self._order]
        return ordered.reshape(self.count, -1, *visual_tokens.shape[2:])

    def take(self, latent: Array, part: Array) -> Array:
        """[tile_batch * B, side, side, C]."""
        shape = (latent.shape[0], self._side, self._side, latent.shape[3])
        starts = jnp.asarray(self._starts)[part]
        return jnp.concatenate(
            [
                jax.lax.dynamic_slice(latent, (0, starts[i, 0], starts[i, 1], 0), shape)
                for i in range(self._tile_batch)
            ]
        )

    def add(self, total: Array, values: Array, part: Array) -> Array:
        """Weighted values added where their tiles lie."""
        starts, live = jnp.asarray(self._starts)[part], jnp.asarray(self._live)[part]
        for i, tile in enumerate(jnp.split(values, self._tile_batch)):
            position = (0, starts[i, 0], starts[i, 1], 0)
            present = jax.lax.dynamic_slice(total, position, tile.shape)
            # A filler may be anything, also not finite.
            tile = jnp.where(live[i], tile * self._weights, 0)
            total = jax.lax.dynamic_update_slice(total, present + tile, position)
        return total

    def mean(self, total: Array) -> Array:
        """The weighted mean over the tiles that cover a place."""
        return total / self._mass

    def counted(self, rows: Array, part: Array) -> Array:
        """Marked rows of tiles that are no fillers."""
        live = jnp.asarray(self._live)[part]
        return jnp.sum(rows.reshape(self._tile_batch, -1) & live[:, None])


def tile_batches(grid: TileGrid, tile_batch: int) -> int:
    """How often the network is called for one evaluation of the whole latent."""
    return -(-len(grid.starts) // tile_batch)


def _batches(grid: TileGrid, tile_batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts [batches, tile_batch, 2] and whether each is a tile [batches, tile_batch] bool."""
    starts = grid.starts
    padded = tile_batches(grid, tile_batch) * tile_batch
    index = np.arange(padded)
    filled = starts[np.minimum(index, len(starts) - 1)]
    live = index < len(starts)
    return filled.reshape(-1, tile_batch, 2), live.reshape(-1, tile_batch)
