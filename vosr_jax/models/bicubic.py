"""Bicubic resizing along one axis as a constant matrix."""

import functools
import math

import numpy as np


def _cubic(x: np.ndarray | float, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel."""
    x = np.abs(x)
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    outer = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, inner, np.where(x < 2, outer, 0.0))


@functools.lru_cache(maxsize=256)
def bicubic_matrix(
    inputs: int, outputs: int, offset: float = 0.0, antialias: bool = False
) -> np.ndarray:
    """Bicubic resize along one axis as a constant matrix, as torch's interpolate computes it.

    Args:
      inputs, outputs: number of samples before and after.
      offset: added to `outputs` to compute the scale (DINOv2's position embedding).
      antialias: torch's antialiasing filter (a = -0.5, support widened when it shrinks, window
        cut at the border) instead of the plain one (a = -0.75, border samples repeated).

    Returns:
      [outputs, inputs] float32; half-pixel centres.
    """
    scale = inputs / (outputs + offset)
    centre = (np.arange(outputs) + 0.5) * scale  # in units of input pixels, left edge 0
    matrix = np.zeros((outputs, inputs))
    if antialias:
        stretch = max(scale, 1.0)
        position = np.arange(inputs) + 0.5
        matrix = _cubic((position[None] - centre[:, None]) / stretch, -0.5)
        return (matrix / matrix.sum(1, keepdims=True)).astype(np.float32)
    # torch rounds the scale and each position to float32. On a side of 2000 that moves the taps
    # by up to 1e-4 of a pixel, more than all other rounding together.
    centre = (np.arange(outputs) + 0.5) * np.float64(np.float32(scale))
    for row, x in enumerate((centre - 0.5).astype(np.float32).astype(np.float64)):
        left = math.floor(x)
        for tap in range(left - 1, left + 3):
            weight = _cubic(x - tap, -0.75)
            matrix[row, min(max(tap, 0), inputs - 1)] += weight
    return matrix.astype(np.float32)
