"""Bicubic resizing as MATLAB's imresize does it, in numpy."""

import math

import numpy as np

_A = -0.5


def imresize(image: np.ndarray, scale: float, *, antialiasing: bool = True) -> np.ndarray:
    """Resize by a factor; padding mirrors the image, edge pixels included.

    Args:
      image: [H, W] or [H, W, C], float.
      scale: of both sides, which become ceil(side * scale).
      antialiasing: whether a reduction widens the kernel to average over skipped pixels.

    Returns:
      The resized image, float64.
    """
    down, across = (_matrix(side, scale, antialiasing) for side in image.shape[:2])
    return np.einsum("oh,hw...,pw->op...", down, image.astype(np.float64), across, optimize=True)


def _matrix(side: int, scale: float, antialiasing: bool) -> np.ndarray:
    """Weights [ceil(side * scale), side] of the input pixels in each output pixel."""
    outputs = math.ceil(side * scale)
    width = 1 / scale if antialiasing and scale < 1 else 1.0
    centre = (np.arange(outputs) + 0.5) / scale - 0.5
    reach = math.ceil(4 * width) + 2
    taps = np.floor(centre - 2 * width).astype(int)[:, None] + np.arange(reach)
    weights = _cubic((centre[:, None] - taps) / width)
    weights /= weights.sum(1, keepdims=True)
    # Mirrored at the outer side of the edge pixels: ... 1 0 | 0 1 ...
    folded = taps % (2 * side)
    folded = np.where(folded < side, folded, 2 * side - 1 - folded)
    matrix = np.zeros((outputs, side))
    np.add.at(matrix, (np.arange(outputs)[:, None], folded), weights)
    return matrix


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel."""
    x = np.abs(x)
    near = (_A + 2) * x**3 - (_A + 3) * x**2 + 1
    far = _A * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
