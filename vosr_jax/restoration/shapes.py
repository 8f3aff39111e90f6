"""Sizes of results, and the sizes at which they are computed.

"shared": images of all sizes run the same compiled programs, tile by tile. "exact": programs for
the image's own size. Once compiled they take less time, which suits many images of one size. The
result is the same up to rounding.
"""

from typing import Literal, get_args

import numpy as np
from PIL import Image

Shapes = Literal["shared", "exact"]
SHAPES: tuple[str, ...] = get_args(Shapes)


def enlarged(pixels: np.ndarray, scale: float) -> np.ndarray:
    """Resize [h, w, 3] uint8 or uint16 bicubically to [H, W, 3] float32 in [0, 1].

    8-bit images are rounded to 8 bits after resizing, as in the official programs.
    """
    size = enlarged_size((pixels.shape[1], pixels.shape[0]), scale)
    if pixels.dtype == np.uint8:
        resized = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
        return np.asarray(resized, np.float32) / 255
    channels = []
    for channel in np.moveaxis(pixels, -1, 0):
        image = Image.fromarray(channel.astype(np.float32))
        channels.append(np.asarray(image.resize(size, Image.Resampling.BICUBIC)))
    return np.clip(np.stack(channels, axis=-1) / np.float32(65535), 0, 1)


def enlarged_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(width, height) of the result for the source's (width, height)."""
    width, height = (max(round(scale * side), 1) for side in size)
    return width, height


def computed_side(side: int, multiple: int, shortest: int = 1) -> int:
    """Length of the side to compute for `side` pixels of the result.

    Args:
      side: of the result, in pixels.
      multiple: the computed side is a multiple of it, as the networks require.
      shortest: smallest side to compute.
    """
    return -(-max(side, shortest) // multiple) * multiple


def mirror(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pad [h, w, C] on the right and below to size (H, W), mirrored at the edge."""
    for axis, grown in enumerate(size):
        side = pixels.shape[axis]
        padding = [(0, 0)] * pixels.ndim
        padding[axis] = (0, grown - side)
        pixels = np.pad(pixels, padding, mode="reflect" if side > 1 else "edge")
    return pixels
