"""Tiles of a latent: where they lie, and how their results are weighted.

The scheme is the official inference scripts'; tiles at the far edges are shifted inward, so
that all have one shape.
"""

import dataclasses

import numpy as np

_VARIANCE = 0.01


@dataclasses.dataclass(frozen=True)
class TileGrid:
    """Square tiles of one latent.

    Attributes:
      side: a tile's side in latent pixels.
      rows, columns: upper and left starts.
      between: whether further tiles lie between those, half a step further on; see `plan_tiles`.
    """

    side: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    between: bool = False

    @property
    def starts(self) -> np.ndarray:
        """[N, 2] int32 (row, column) of every tile, row by row; those between come last."""
        pairs = [(row, column) for row in self.rows for column in self.columns]
        if self.between:
            rows, columns = _middles(self.rows), _middles(self.columns)
            pairs += [(row, column) for row in rows for column in columns]
        return np.array(pairs, np.int32)


def _middles(starts: tuple[int, ...]) -> list[int]:
    """Starts half-way between neighbours; the only one where there are none."""
    middles = [(a + b) // 2 for a, b in zip(starts, starts[1:], strict=False)]
    return middles or list(starts)


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Starts of tiles that cover `length`; the last ends at the edge."""
    if length <= tile:
        return [0]
    stride = max(tile - overlap, 1)
    starts = list(range(0, length - tile + 1, stride))
    if starts[-1] + tile < length:
        starts.append(length - tile)
    return starts


def plan_tiles(
    latent_hw: tuple[int, int],
    tile_size: int,
    tile_overlap: int,
    downscale: int,
    patch_size: int,
    passes: int = 1,
) -> TileGrid | None:
    """Tiles for a latent, or None where it fits into one.

    Args:
      latent_hw: the latent's height and width.
      tile_size: a tile's side in pixels; 0 means no tiles.
      tile_overlap: in pixels; raised to an eighth of the tile.
      downscale: pixels on the side of a latent pixel.
      patch_size: latent pixels on the side of a token; tiles are multiples of it.
      passes: 2 has a second grid, shifted by half a step, so that every border between tiles of
        one lies in the middle of tiles of the other; the velocities of both are averaged. It
        nearly doubles the work. The official scripts have one.
    """
    if tile_size <= 0:
        return None
    height, width = latent_hw
    tile = max(tile_size // downscale // patch_size * patch_size, patch_size)
    overlap = max(tile_overlap // downscale, tile // 8)
    if height <= tile and width <= tile:
        return None
    tile = min(tile, height, width)
    overlap = min(overlap, tile - 1)
    rows, columns = (tile_starts(length, tile, overlap) for length in latent_hw)
    return TileGrid(tile, tuple(rows), tuple(columns), between=passes == 2)


def gaussian_weights(height: int, width: int) -> np.ndarray:
    """[height, width] float32 weights, 1 in the middle, falling to about e^-12.5 at the edges."""

    def profile(length: int) -> np.ndarray:
        offset = (np.arange(length) - (length - 1) / 2) / length
        return np.exp(-(offset**2) / (2 * _VARIANCE))

    return np.outer(profile(height), profile(width)).astype(np.float32)
