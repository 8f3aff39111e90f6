"""What tells a picture worth training on from one that is not: sharpness, blocks, sameness."""

import cv2
import numpy as np

_HASH_SIDE = 8
_BLOCK = 8


def grey_levels(picture: np.ndarray) -> np.ndarray:
    """[H, W, 3] uint8 RGB -> [H, W] float32 in 0..255."""
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)


def sharpness(grey: np.ndarray) -> float:
    """Variance of the Laplacian: low where nothing is in focus.

    Args:
      grey: [H, W] float32 in 0..255.
    """
    return float(cv2.Laplacian(grey, cv2.CV_32F).var())


def blockiness(grey: np.ndarray) -> float:
    """Mean step across the borders of the 8x8 grid over that inside: 1 without JPEG's blocks.

    Args:
      grey: [H, W] float32 in 0..255; the grid starts at its first pixel.
    """
    at_borders = inside = 0.0
    for steps in (np.abs(np.diff(grey, axis=1)).mean(0), np.abs(np.diff(grey, axis=0)).mean(1)):
        border = np.arange(len(steps)) % _BLOCK == _BLOCK - 1
        if not border.any():
            return 1.0
        at_borders += float(steps[border].mean())
        inside += float(steps[~border].mean())
    # Of a picture without any step nothing can be said.
    return at_borders / inside if inside > 1e-6 else 1.0


def perceptual_hash(grey: np.ndarray) -> int:
    """64 bits that pictures of the same content share for the most part.

    The signs of the 8x8 lowest cosine frequencies of the picture at 32x32, about their median:
    size, compression and small changes of brightness hardly move them.

    Args:
      grey: [H, W] float32.
    """
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small)[:_HASH_SIDE, :_HASH_SIDE].ravel()
    # The mean says nothing about the content.
    bits = low > np.median(low[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def hash_distance(one: int, other: int) -> int:
    """How many of the 64 bits differ."""
    return (one ^ other).bit_count()
