"""Figures that show whether an image made in tiles or patches has seams, in numpy.

Images are [H, W, 3] RGB in 0..255, uint8 or float. The figures use their luma.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vosr_jax.restoration.upscaler import Upscaler

_LUMA = np.array([0.299, 0.587, 0.114])
_FAINTEST = 1e-2


def tile_borders(starts: Sequence[int], side: int, length: int) -> list[int]:
    """Positions where tiles begin or end inside an image of `length` pixels, in order."""
    edges = {edge for start in starts for edge in (start, start + side)}
    return sorted(edge for edge in edges if 0 < edge < length)


def tile_disagreement(upscaler: Upscaler, image: Any, **settings: Any) -> float:
    """Disagreement of neighbouring tiles: the mean over `Upscaler.tile_disagreement`'s steps."""
    return float(np.mean(upscaler.tile_disagreement(image, **settings)))


def border_energy(image: np.ndarray, rows: Sequence[int], columns: Sequence[int]) -> float:
    """Ratio of the mean squared luma step across border lines to that elsewhere.

    It is about 1 if the lines do not show and the image itself has no edges along them. Compare it
    with the same figure of an image made without tiles.

    Args:
      image: the image.
      rows: border lines; line r lies between rows r - 1 and r.
      columns: likewise for columns.
    """
    borders, elsewhere = [], []
    for lines, energy in zip((rows, columns), _step_energy(image), strict=True):
        steps = np.zeros(len(energy), bool)
        steps[[line - 1 for line in lines]] = True
        borders.append(energy[steps].ravel())
        elsewhere.append(energy[~steps].ravel())
    across, other = np.concatenate(borders), np.concatenate(elsewhere)
    if across.size == 0 or other.mean() == 0:
        return 1.0
    return float(across.mean() / other.mean())


def period_power(
    image: np.ndarray,
    period: int,
    *,
    finer: int | None = None,
    reference: np.ndarray | None = None,
) -> float:
    """Ratio of the log step energy's power at a period's harmonics to that between them.

    It is about 1 for a photo and far above 1 if a grid of this period shows. At least two periods
    must fit into each side; an incomplete last period is ignored.

    Args:
      image: the image.
      period: the grid's period, pixels.
      finer: the period of another grid, a divisor of `period`, whose harmonics are left out.
      reference: the same image made without the grid; its profile is subtracted.

    Raises:
      ValueError: the image is too small.
    """
    others = (None, None) if reference is None else _step_energy(reference)
    at, between = [], []
    for energy, other in zip(_step_energy(image), others, strict=True):
        # The last pixel has no step after it.
        periods = (len(energy) + 1) // period
        if periods < 2:
            raise ValueError(f"two periods of {period} pixels do not fit into {image.shape[:2]}")
        profile = _profile(energy, periods * period)
        if other is not None:
            profile = profile - _profile(other, periods * period)
        power = np.abs(np.fft.rfft(profile - profile.mean())) ** 2
        number = np.arange(len(power))
        harmonic = number % periods == 0
        # Frequencies below the period's belong to the image's own light and dark areas.
        wanted = number >= periods
        if finer is not None:
            wanted &= number % (periods * period // finer) != 0
        at.append(power[harmonic & wanted])
        between.append(power[~harmonic & wanted])
    return float(np.concatenate(at).mean() / max(np.concatenate(between).mean(), 1e-12))


def _profile(energy: np.ndarray, length: int) -> np.ndarray:
    """[length] log of the mean step energy per line."""
    # Without the logarithm the image's few strongest edges would dominate.
    profile = np.log(energy.mean(1)[:length] + _FAINTEST)
    return np.append(profile, profile[-1:].repeat(length - len(profile)))


def _step_energy(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared luma steps down [H - 1, W], and to the right, transposed to [W - 1, H]."""
    luma = np.asarray(image, np.float64) @ _LUMA
    return np.diff(luma, axis=0) ** 2, np.diff(luma, axis=1).T ** 2
