"""Resizing as in PyTorch's interpolate (no antialiasing), and as in Pillow.

Two facts determine the result. Bilinear and bicubic space their samples by 1 / scale_factor if
given a scale factor, and by in / out if given a size. Area is adaptive average pooling and depends
on the sizes alone.
"""

import functools
import math
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from vosr_jax.data.degradation.noise import eight_bits

MODES = ("area", "bilinear", "bicubic")
_CUBIC_A = -0.75


def scaled_size(side: int, scale_factor: float) -> int:
    """Compute floor(side * scale_factor) in double precision."""
    return math.floor(side * float(scale_factor))


def resize_by(image: np.ndarray, scale_factor: float, mode: str) -> np.ndarray:
    """Resize by a factor.

    Args:
      image: [H, W, 3] float32.
      scale_factor: output side over input side; the side is rounded down.
      mode: "area", "bilinear" or "bicubic".

    Returns:
      [floor(H f), floor(W f), 3] float32, not clipped.
    """
    height, width = (scaled_size(side, scale_factor) for side in image.shape[:2])
    return _resize(image, height, width, mode, 1 / scale_factor, 1 / scale_factor)


def resize_to(image: np.ndarray, height: int, width: int, mode: str) -> np.ndarray:
    """Resize to a size: [H, W, 3] float32 -> [height, width, 3] float32, not clipped."""
    rows, columns = image.shape[:2]
    return _resize(image, height, width, mode, rows / height, columns / width)


def resize_eight_bits(image: np.ndarray, height: int, width: int, filter: str) -> np.ndarray:
    """Resize as Pillow does on 256 grey levels, with antialiasing when it reduces.

    Args:
      image: [H, W, 3] float32; clipped to [0, 1] and rounded to 256 levels first.
      height, width: the new size.
      filter: "box", "bilinear", "hamming", "bicubic" or "lanczos".

    Returns:
      [height, width, 3] float32 in [0, 1], on the 256 grey levels.
    """
    levels = Image.fromarray(eight_bits(image))
    resized = levels.resize((width, height), Image.Resampling[filter.upper()])
    return np.asarray(resized).astype(np.float32) / np.float32(255)


def _resize(image, height, width, mode, row_step, column_step):
    if mode not in MODES:
        raise ValueError(f"resize mode {mode!r} is unknown; use one of {', '.join(MODES)}")
    if (height, width) == image.shape[:2] and row_step == 1 and column_step == 1:
        return image
    rows = taps(mode, image.shape[0], height, row_step)
    columns = taps(mode, image.shape[1], width, column_step)
    # Resize the axis that shrinks more first: the other then has less work.
    if height * image.shape[1] <= width * image.shape[0]:
        return _along_columns(_along_rows(image, *rows), *columns)
    return _along_rows(_along_columns(image, *columns), *rows)


@functools.lru_cache(maxsize=256)
def taps(mode: str, size: int, out_size: int, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Compute the input samples that each output sample reads, and their weights.

    Args:
      mode: "area", "bilinear" or "bicubic".
      size, out_size: number of samples before and after.
      step: input samples per output sample (ignored by "area").

    Returns:
      (index [out_size, k] int64, weight [out_size, k] float32); weights of a row sum to 1.
    """
    position = np.arange(out_size, dtype=np.float64)
    if mode == "area":
        # Integer arithmetic: a quotient may round across a pixel's border.
        whole = np.arange(out_size)
        start = whole * size // out_size
        stop = -((-(whole + 1) * size) // out_size)
        index = start[:, None] + np.arange(max((stop - start).max(), 1))
        weight = (index < stop[:, None]) / (stop - start)[:, None]
    elif mode == "bilinear":
        source = np.maximum((position + 0.5) * step - 0.5, 0)
        first = np.floor(source).astype(np.int64)
        fraction = source - first
        index = first[:, None] + np.arange(2)
        weight = np.stack([1 - fraction, fraction], axis=1)
    else:
        source = (position + 0.5) * step - 0.5
        first = np.floor(source).astype(np.int64)
        index = first[:, None] + np.arange(-1, 3)
        weight = cubic_weight(np.abs(source[:, None] - index))
    return np.clip(index, 0, size - 1), weight.astype(np.float32)


def cubic_weight(distance: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -0.75 at non-negative distances."""
    d, a = distance, _CUBIC_A
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = a * (((d - 5) * d + 8) * d - 4)
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def _along_rows(image, index, weight):
    """Compute weighted sums of rows: [H, W, 3] -> [out, W, 3]."""
    flat = image.reshape(image.shape[0], -1)
    result = flat[index[:, 0]] * weight[:, :1]
    for k in range(1, index.shape[1]):
        result += flat[index[:, k]] * weight[:, k : k + 1]
    return result.reshape(-1, *image.shape[1:])


def _along_columns(image, index, weight):
    """Compute weighted sums of columns as rows of the transpose, where memory is contiguous."""
    return cv2.transpose(_along_rows(cv2.transpose(image), index, weight))


@dataclass(frozen=True)
class ResizeBy:
    """Resize by a scale factor."""

    scale_factor: float
    mode: str

    def apply(self, image: np.ndarray) -> np.ndarray:
        return resize_by(image, self.scale_factor, self.mode)


@dataclass(frozen=True)
class ResizeTo:
    """Resize to a size."""

    height: int
    width: int
    mode: str

    def apply(self, image: np.ndarray) -> np.ndarray:
        return resize_to(image, self.height, self.width, self.mode)


@dataclass(frozen=True)
class ReduceTo:
    """Round to eight bits and resize to a smaller size with antialiasing, as editors do."""

    height: int
    width: int
    filter: str

    def apply(self, image: np.ndarray) -> np.ndarray:
        return resize_eight_bits(image, self.height, self.width, self.filter)


@dataclass(frozen=True)
class EnlargeTo:
    """Round to eight bits and enlarge bicubically, as restoration does with the LR image."""

    height: int
    width: int

    def apply(self, image: np.ndarray) -> np.ndarray:
        return resize_eight_bits(image, self.height, self.width, "bicubic")
