"""The size at which a picture is computed, so that compiled programs fit.

"exact": the next multiple of what the networks need. Every new size is compiled once; the result
is the official one. "buckets": one of few sizes, so that a folder of pictures of all sizes
compiles few programs; the picture is mirrored to fill up, which the networks see.
"""

from typing import Literal, get_args

import numpy as np

Shapes = Literal["exact", "buckets"]
SHAPES: tuple[str, ...] = get_args(Shapes)

_SMALL_SIDES = (64, 96, 128, 192, 256, 384, 512, 768)
_LARGE_STEP = 512


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
