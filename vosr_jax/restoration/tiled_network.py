"""A denoiser for latents of any size, made of one for tiles.

Every evaluation runs the network on overlapping tiles, some at a time and all of one shape, and
blends what it predicts with Gaussian weights. Velocities are blended at every sampling step, so
that neighbours agree from the noise on (the official scripts' scheme).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vosr_jax.diffusion.parameterization import VelocityFn
from vosr_jax.restoration.tiling import TileGrid, gaussian_weights


def tiled_network(
    network: VelocityFn,
    grid: TileGrid,
    tile_batch: int = 1,
    on_batch: Callable[[], None] | None = None,
) -> VelocityFn:
    """Wrap a network so that it sees tiles only.

    Args:
      network: (condition, noisy, t, visual_tokens, r) -> output, with batches of
        tile_batch * B rows.
      grid: the tiles.
      tile_batch: tiles in one call of the network; a last, smaller batch is filled up with
        tiles that carry no weight.
      on_batch: called on the host after every batch of tiles.

    Returns:
      A network of the same signature for full latents [B, h, w, C], whose visual_tokens are
      those of every tile, [B, tiles, N, D], in the order of `grid.starts`.
    """
    starts, live = _batches(grid, tile_batch)

    def tiled(condition, noisy, t, visual_tokens=None, r=None) -> Array:
        rows = condition.shape[0]
        weights = jnp.asarray(gaussian_weights(grid.side, grid.side))[None, :, :, None]
        times = jnp.tile(t, tile_batch)
        ends = None if r is None else jnp.tile(r, tile_batch)
        tokens = _tokens_of_batches(visual_tokens, len(starts) * tile_batch)

        def body(total: tuple[Array, Array], inputs) -> tuple[tuple[Array, Array], None]:
            batch_starts, batch_live, batch_tokens = inputs
            conditions = _gather(condition, batch_starts, grid.side)
            noisies = _gather(noisy, batch_starts, grid.side)
            output = network(conditions, noisies, times, batch_tokens, ends)
            values, mass = total
            for i in range(tile_batch):
                weight = weights * batch_live[i]
                values = _add(values, output[i * rows : (i + 1) * rows] * weight, batch_starts[i])
                mass = _add(mass, weight, batch_starts[i])
            if on_batch is not None:
                jax.debug.callback(on_batch)
            return (values, mass), None

        zeros = jnp.zeros(noisy.shape, jnp.float32), jnp.zeros((1, *noisy.shape[1:3], 1))
        inputs = jnp.asarray(starts), jnp.asarray(live), tokens
        (values, mass), _ = jax.lax.scan(body, zeros, inputs)
        return values / mass

    def _tokens_of_batches(visual_tokens: Array | None, padded: int) -> Array | None:
        """[B, tiles, N, D] to [batches, tile_batch * B, N, D]."""
        if visual_tokens is None:
            return None
        rows, tiles = visual_tokens.shape[:2]
        index = np.minimum(np.arange(padded), tiles - 1)
        ordered = jnp.moveaxis(visual_tokens, 0, 1)[index]
        return ordered.reshape(-1, tile_batch * rows, *visual_tokens.shape[2:])

    return tiled


def tile_batches(grid: TileGrid, tile_batch: int) -> int:
    """How often the network is called for one evaluation of the whole latent."""
    return -(-len(grid.starts) // tile_batch)


def _batches(grid: TileGrid, tile_batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts [batches, tile_batch, 2] and 1 for a tile, 0 for a filler [batches, tile_batch]."""
    starts = grid.starts
    padded = tile_batches(grid, tile_batch) * tile_batch
    index = np.arange(padded)
    live = (index < len(starts)).astype(np.float32)
    filled = starts[np.minimum(index, len(starts) - 1)]
    return filled.reshape(-1, tile_batch, 2), live.reshape(-1, tile_batch)


def _gather(x: Array, starts: Array, side: int) -> Array:
    """The tiles of [B, h, w, C] as [tiles * B, side, side, C], tile by tile."""
    shape = (x.shape[0], side, side, x.shape[3])
    tiles = [
        jax.lax.dynamic_slice(x, (0, starts[i, 0], starts[i, 1], 0), shape)
        for i in range(starts.shape[0])
    ]
    return jnp.concatenate(tiles)


def _add(total: Array, tile: Array, start: Array) -> Array:
    position = (0, start[0], start[1], 0)
    present = jax.lax.dynamic_slice(total, position, tile.shape)
    return jax.lax.dynamic_update_slice(total, present + tile, position)
