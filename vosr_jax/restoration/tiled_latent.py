"""A latent of any size as tiles that programs of one shape compute.

Every network call takes tiles [B, side, side, C]. Cutting, blending and the Euler step are NumPy's:
they are a thousandth of the work, and every size would need programs of its own. The velocities are
blended with Gaussian weights at every sampling step, so that neighbours agree from the noise on
(the official scripts' scheme). A latent, or the official tile of a narrow one, that is smaller than
the program's tile lies in its upper left; the network is told how much of the tile is latent and
gives what the smaller one alone would get.
"""

from typing import NamedTuple

import numpy as np

from vosr_jax.restoration.tiling import TileGrid, gaussian_weights


def program_sides(tile_size: int, downscale: int, patch_size: int) -> tuple[int, ...]:
    """Sides in latent pixels at which programs exist: that of a tile and half of it.

    Args:
      tile_size: in pixels; 0 means no tiles, and a program for every size.
      downscale, patch_size: as in `tiling.plan_tiles`.
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
      extent: the rows and columns of it that hold latent, or None for all.
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
    """What tiles of a latent are computed in.

    Args:
      latent_hw: the latent's height and width.
      grid: its tiles; None for the whole latent as one.
      sides: what `program_sides` gives; the first into which a tile fits is taken. Where none
        does, the tile's own shape is.
      full_apart: whether full tiles have a program of their own, which need not look at extents.
    """
    live = latent_hw if grid is None else (grid.side, grid.side)
    side = next((side for side in sides if side >= max(live)), None)
    full = live == (side, side) and side == sides[-1]
    if side is None or (full and full_apart):
        return ProgramTile(live, None)
    return ProgramTile((side, side), live)


class TiledLatent:
    """One picture's latent on its way from noise, cut into tiles, on the host.

    Args:
      lq_latent, noise: [B, h, w, C] float32.
      grid: the tiles; None for the whole latent as one.
      program: from `program_tile`.

    Attributes:
      extent: as in ProgramTile.
      disagreements: None, or a list that gets a figure in every step: the tiles' deviation from
        their weighted mean, over places that several cover, divided by the velocity's root mean
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
        """Blend in a tile's velocity [B, rows, columns, C], which may be anything elsewhere."""
        place, (rows, columns) = self._place(number), self._weights.shape[:2]
        velocity = velocity[:, :rows, :columns]
        self._total[place] += velocity * self._weights
        self._added[place[1:]] += self._weights
        if self.disagreements is not None:
            self._squares[place] += velocity**2 * self._weights

    def ahead(self, number: int, t: np.ndarray) -> tuple[tuple[slice, slice], np.ndarray]:
        """Where a tile that was added lies, and z there if it went straight on from t to 0."""
        place = self._place(number)
        mean = self._total[place] / self._added[place[1:]]
        return place[1:], self._z[place] - t * mean

    def step(self, t: np.ndarray, t_next: np.ndarray) -> None:
        """An Euler step from t to t_next, float32 scalars, along what was blended in."""
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
        """z as it stands, [B, h, w, C]."""
        return self._z
