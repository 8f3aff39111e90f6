"""Measures of an image's worth for training: sharpness, JPEG blocks, perceptual hash."""

import cv2
import numpy as np

_HASH_SIDE = 8
_BLOCK = 8


def grey_levels(picture: np.ndarray) -> np.ndarray:
    """Convert [H, W, 3] uint8 RGB to [H, W] float32 in 0..255."""
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)


def sharpness(grey: np.ndarray) -> float:
    """Compute the variance of the Laplacian, which is low if nothing is in focus.

    Args:
      grey: [H, W] float32 in 0..255.
    """
    return float(cv2.Laplacian(grey, cv2.CV_32F).var())


def blockiness(grey: np.ndarray) -> float:
    """Compute the ratio of the mean step across 8x8 borders to that inside: 1 without JPEG blocks.

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
    # An image without any step gives no information.
    return at_borders / inside if inside > 1e-6 else 1.0


def perceptual_hash(grey: np.ndarray) -> int:
    """Compute a 64-bit hash that is similar for images of the same content.

    Its bits say which of the 8x8 lowest cosine frequencies of the 32x32 image exceed their median.
    Size, compression and small changes of brightness hardly change them.

    Args:
      grey: [H, W] float32.
    """
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small)[:_HASH_SIDE, :_HASH_SIDE].ravel()
    # Leave out the mean brightness, which says nothing about the content.
    bits = low > np.median(low[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def hash_distance(one: int, other: int) -> int:
    """Number of the 64 bits that differ."""
    return (one ^ other).bit_count()
