"""Latents of any size as tiles, computed by programs of one shape.

Tiles are placed as in the official inference scripts: those at the far edges are shifted inward, so
all have one shape. Every network call takes tiles [B, side, side, C]. Cutting, blending and the
Euler step run in NumPy: they are a thousandth of the work, and in JAX each size would need its own
programs. The velocities are blended with Gaussian weights at every sampling step, so neighbours
agree from the noise on. A latent that is smaller than the program's tile, or the official tile of a
narrow latent, lies in the tile's upper left. The network receives that extent and gives the same
result as for the smaller tile alone.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

_VARIANCE = 0.01


@dataclasses.dataclass(frozen=True)
class TileGrid:
    """Square tiles of one latent.

    Attributes:
      side: a tile's side in latent pixels.
      rows, columns: upper and left starts.
      between: whether a second grid, shifted by half a step, lies between; see `plan_tiles`.
    """

    side: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    between: bool = False

    @property
    def starts(self) -> np.ndarray:
        """[N, 2] int32 (row, column) of every tile, row by row; the second grid comes last."""
        pairs = [(row, column) for row in self.rows for column in self.columns]
        if self.between:
            rows, columns = _middles(self.rows), _middles(self.columns)
            pairs += [(row, column) for row in rows for column in columns]
        return np.array(pairs, np.int32)


def _middles(starts: tuple[int, ...]) -> list[int]:
    """Starts half-way between neighbours; a single start stays as it is."""
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
    """Plan the tiles of a latent; None if it fits into one.

    Args:
      latent_hw: the latent's height and width.
      tile_size: a tile's side in pixels; 0 means no tiles.
      tile_overlap: in pixels; raised to an eighth of the tile.
      downscale: pixels on the side of a latent pixel.
      patch_size: latent pixels on the side of a token; tiles are multiples of it.
      passes: 2 adds a second grid, shifted by half a step: every border between tiles of one grid
        lies in the middle of tiles of the other. The velocities of both are averaged. It nearly
        doubles the work. The official scripts use one grid.
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


def program_sides(tile_size: int, downscale: int, patch_size: int) -> tuple[int, ...]:
    """Sides in latent pixels at which programs exist: a full tile's and half of it.

    Args:
      tile_size: in pixels; 0 means no tiles and a program for every size.
      downscale, patch_size: as in `plan_tiles`.
    """
    if tile_size <= 0:
        return ()
    full = max(tile_size // downscale // patch_size, 1)
    half = -(-full // 2)
    return tuple(sorted({half * patch_size, full * patch_size}))


class ProgramTile(NamedTuple):
    """The tile that a program sees.

    Attributes:
      shape: its rows and columns.
      extent: the rows and columns that hold the latent, or None for all.
    """

    shape: tuple[int, int]
    extent: tuple[int, int] | None


def program_tile(
    latent_hw: tuple[int, int],
    grid: TileGrid | None,
    sides: tuple[int, ...],
    *,
    full_apart: bool = False,
) -> ProgramTile:
    """Choose the program tile in which a latent's tiles are computed.

    Args:
      latent_hw: the latent's height and width.
      grid: its tiles; None for the whole latent as one.
      sides: from `program_sides`; the first one that a tile fits into is taken. If none is large
        enough, the tile's own shape is taken.
      full_apart: whether full tiles have their own program, which needs no extents.
    """
    live = latent_hw if grid is None else (grid.side, grid.side)
    side = next((side for side in sides if side >= max(live)), None)
    full = live == (side, side) and side == sides[-1]
    if side is None or (full and full_apart):
        return ProgramTile(live, None)
    return ProgramTile((side, side), live)


class TiledLatent:
    """One image's latent during sampling, cut into tiles, on the host.

    Args:
      lq_latent, noise: [B, h, w, C] float32.
      grid: the tiles; None for the whole latent as one.
      program: from `program_tile`.

    Attributes:
      extent: as in ProgramTile.
      disagreements: None, or a list that receives one value per step: the tiles' deviation from
        their weighted mean where several tiles overlap, divided by the velocity's root mean
        square.
    """

    def __init__(
        self, lq_latent: np.ndarray, noise: np.ndarray, grid: TileGrid | None, program: ProgramTile
    ):
        self._shape, self.extent = program
        self.disagreements: list[float] | None = None
        self._lq, self._z = lq_latent, noise
        rows, columns = self.extent or self._shape
        self._starts = np.zeros((1, 2), np.int32) if grid is None else grid.starts
        ones = np.ones((rows, columns), np.float32)
        self._weights = (ones if grid is None else gaussian_weights(rows, columns))[:, :, None]
        self._mass = np.zeros((*lq_latent.shape[1:3], 1), np.float32)
        self._covered = np.zeros(lq_latent.shape[1:3], int)
        for number in range(len(self._starts)):
            place = self._place(number)
            self._mass[place[1:]] += self._weights
            self._covered[place[1:]] += 1
        self._total, self._squares = np.zeros_like(noise), np.zeros_like(noise)
        self._added = np.zeros_like(self._mass)

    def _place(self, number: int) -> tuple[slice, slice, slice]:
        (row, column), (rows, columns) = self._starts[number], self._weights.shape[:2]
        return slice(None), slice(row, row + rows), slice(column, column + columns)

    def tile(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """(condition, noisy) of a tile, [B, rows, columns, C] each, zero beyond the extent."""
        place = self._place(number)
        return self._filled(self._lq[place]), self._filled(self._z[place])

    def _filled(self, tile: np.ndarray) -> np.ndarray:
        rows, columns = (n - side for n, side in zip(self._shape, tile.shape[1:3], strict=True))
        return np.pad(tile, ((0, 0), (0, rows), (0, columns), (0, 0)))

    def add(self, number: int, velocity: np.ndarray) -> None:
        """Blend in a tile's velocity [B, rows, columns, C]; ignore values beyond the extent."""
        place, (rows, columns) = self._place(number), self._weights.shape[:2]
        velocity = velocity[:, :rows, :columns]
        self._total[place] += velocity * self._weights
        self._added[place[1:]] += self._weights
        if self.disagreements is not None:
            self._squares[place] += velocity**2 * self._weights

    def ahead(self, number: int, t: np.ndarray) -> tuple[tuple[slice, slice], np.ndarray]:
        """The place of an added tile, and its z if the sampler went straight on from t to 0."""
        place = self._place(number)
        mean = self._total[place] / self._added[place[1:]]
        return place[1:], self._z[place] - t * mean

    def step(self, t: np.ndarray, t_next: np.ndarray) -> None:
        """Take an Euler step from t to t_next, float32 scalars, along the blended velocity."""
        mean = self._total / self._mass
        if self.disagreements is not None:
            self.disagreements.append(self._disagreement(mean))
        self._z = self._z - (t - t_next) * mean
        self._total[:], self._squares[:], self._added[:] = 0, 0, 0

    def _disagreement(self, mean: np.ndarray) -> float:
        shared = self._covered >= 2
        if not shared.any():
            return 0.0
        spread = np.maximum(self._squares / self._mass - mean**2, 0)[:, shared].mean()
        return float(np.sqrt(spread / max((mean**2).mean(), 1e-12)))

    def result(self) -> np.ndarray:
        """The current z, [B, h, w, C]."""
        return self._z
