"""Figures that show whether a picture made in tiles or patches has seams, in numpy.

Pictures are [H, W, 3] RGB in 0..255, uint8 or float; the figures look at their luma.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vosr_jax.restoration.upscaler import Upscaler

_LUMA = np.array([0.299, 0.587, 0.114])
_FAINTEST = 1e-2


def tile_borders(starts: Sequence[int], side: int, length: int) -> list[int]:
    """Where tiles begin or end inside a picture of `length` pixels, in order."""
    edges = {edge for start in starts for edge in (start, start + side)}
    return sorted(edge for edge in edges if 0 < edge < length)


def tile_disagreement(upscaler: Upscaler, image: Any, **settings: Any) -> float:
    """By how much neighbouring tiles disagree, the mean of `Upscaler.tile_disagreement`'s steps."""
    return float(np.mean(upscaler.tile_disagreement(image, **settings)))


def border_energy(image: np.ndarray, rows: Sequence[int], columns: Sequence[int]) -> float:
    """Mean squared luma step across border lines, over that elsewhere.

    About 1 where the lines do not show, as far as the picture itself has no edges along them:
    compare with the same figure of a picture made without tiles.

    Args:
      image: the picture.
      rows: a line lies between row r - 1 and r.
      columns: likewise.
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
    """Power of the steps' logarithmic energy at a period and its harmonics, over that between.

    About 1 for a photograph; far above it a grid of this period shows. At least two periods must
    fit into either side; what does not fill a period is left out.

    Args:
      image: the picture.
      period: in pixels.
      finer: the period of another grid, a divisor of `period`, whose harmonics are left out.
      reference: the same picture made without the grid, whose own profile is taken off.

    Raises:
      ValueError: the picture is too small.
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
        # Frequencies below the period's are the picture's own light and dark.
        wanted = number >= periods
        if finer is not None:
            wanted &= number % (periods * period // finer) != 0
        at.append(power[harmonic & wanted])
        between.append(power[~harmonic & wanted])
    return float(np.concatenate(at).mean() / max(np.concatenate(between).mean(), 1e-12))


def _profile(energy: np.ndarray, length: int) -> np.ndarray:
    """[length] log of the steps' mean energy, a line after another."""
    # The logarithm, or the picture's few strongest edges would drown all lines.
    profile = np.log(energy.mean(1)[:length] + _FAINTEST)
    return np.append(profile, profile[-1:].repeat(length - len(profile)))


def _step_energy(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared luma steps down [H - 1, W], and to the right with columns first [W - 1, H]."""
    luma = np.asarray(image, np.float64) @ _LUMA
    return np.diff(luma, axis=0) ** 2, np.diff(luma, axis=1).T ** 2
