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
    """

    side: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @property
    def starts(self) -> np.ndarray:
        """[N, 2] int32 (row, column) of every tile, row by row."""
        pairs = [(row, column) for row in self.rows for column in self.columns]
        return np.array(pairs, np.int32)


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
    latent_hw: tuple[int, int], tile_size: int, tile_overlap: int, downscale: int, patch_size: int
) -> TileGrid | None:
    """Tiles for a latent, or None where it fits into one.

    Args:
      latent_hw: the latent's height and width.
      tile_size: a tile's side in pixels; 0 means no tiles.
      tile_overlap: in pixels; raised to an eighth of the tile.
      downscale: pixels on the side of a latent pixel.
      patch_size: latent pixels on the side of a token; tiles are multiples of it.
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
    return TileGrid(tile, tuple(rows), tuple(columns))


def gaussian_weights(height: int, width: int) -> np.ndarray:
    """[height, width] float32 weights, 1 in the middle, falling to about e^-12.5 at the edges."""

    def profile(length: int) -> np.ndarray:
        offset = (np.arange(length) - (length - 1) / 2) / length
        return np.exp(-(offset**2) / (2 * _VARIANCE))

    return np.outer(profile(height), profile(width)).astype(np.float32)
