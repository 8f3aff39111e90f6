"""Sizes of results, and the sizes at which they are computed, so that compiled programs fit.

"exact": the next multiple of what the networks need. Every new size is compiled once; the result
is the official one. "buckets": one of few sizes, so that a folder of pictures of all sizes
compiles few programs; the picture is mirrored to fill up, which the networks see.
"""

from typing import Literal, get_args

import numpy as np
from PIL import Image

Shapes = Literal["exact", "buckets"]
SHAPES: tuple[str, ...] = get_args(Shapes)

_SMALL_SIDES = (64, 96, 128, 192, 256, 384, 512, 768)
_LARGE_STEP = 512


def enlarged(picture: Image.Image, scale: float) -> np.ndarray:
    """[H, W, 3] float32 in [0, 1], bicubically resized."""
    width, height = enlarged_size(picture.size, scale)
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized, np.float32) / 255


def enlarged_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(width, height) of the result for those of the source."""
    width, height = (max(round(scale * side), 1) for side in size)
    return width, height


def computed_side(side: int, multiple: int, shortest: int = 1, shapes: str = "exact") -> int:
    """Pixels on a side that are computed for `side` pixels of the result.

    Args:
      side: of the result.
      multiple: what the networks' sides must be multiples of.
      shortest: no smaller side is computed.
      shapes: one of SHAPES.
    """
    side = max(side, shortest)
    if shapes == "buckets":
        large = -(-side // _LARGE_STEP) * _LARGE_STEP
        side = next((small for small in _SMALL_SIDES if small >= side), large)
    return -(-side // multiple) * multiple


def mirror(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[h, w, C] grown to the right and below to size (H, W), mirrored at the edge."""
    for axis, grown in enumerate(size):
        side = pixels.shape[axis]
        padding = [(0, 0)] * pixels.ndim
        padding[axis] = (0, grown - side)
        pixels = np.pad(pixels, padding, mode="reflect" if side > 1 else "edge")
    return pixels
