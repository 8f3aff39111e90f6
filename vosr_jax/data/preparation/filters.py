"""Filters: which images are kept, and why others are not.

Measures of an image's worth are its sharpness, its JPEG blocks and a perceptual hash. Near
duplicates among many images are found without comparing all pairs.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from vosr_jax.data.preparation import FilterSettings

UNREADABLE = "unreadable"
TOO_SMALL = "too small"
BLOCKY = "blocky"
BLURRED = "blurred"
DUPLICATE = "duplicate"
REASONS = (UNREADABLE, TOO_SMALL, BLOCKY, BLURRED, DUPLICATE)
_HASH_SIDE = 8
_BLOCK = 8
_HASH_BITS = 64


@dataclass(frozen=True)
class Verdict:
    """Result of judging a single image.

    Attributes:
      reason: one of REASONS, or "" if the image is kept.
      detail: the figure or error behind the reason.
      hash: perceptual hash; 0 if it was not needed.
    """

    reason: str
    detail: str
    hash: int = 0


def judge(picture: np.ndarray, settings: FilterSettings) -> Verdict:
    """Judge one image, [H, W, 3] uint8; duplicates are found later, among several."""
    height, width = picture.shape[:2]
    if min(height, width) < settings.min_side:
        return Verdict(TOO_SMALL, f"{width}x{height}")
    grey = grey_levels(picture)
    blocks = blockiness(grey) if settings.max_blockiness else 0.0
    if blocks > settings.max_blockiness:
        return Verdict(BLOCKY, f"{blocks:.2f}")
    sharp = sharpness(grey) if settings.min_sharpness else 0.0
    if sharp < settings.min_sharpness:
        return Verdict(BLURRED, f"{sharp:.1f}")
    return Verdict("", "", perceptual_hash(grey) if settings.duplicate_distance >= 0 else 0)


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


def bands(hash_value: int, distance: int) -> Iterator[tuple[int, int]]:
    """Yield keys; hashes that differ in at most `distance` bits share at least one key.

    A hash is cut into distance + 1 pieces, and the differing bits cannot touch all of them.

    Yields:
      (index of the piece, its bits).
    """
    count = distance + 1
    for piece in range(count):
        start, stop = _HASH_BITS * piece // count, _HASH_BITS * (piece + 1) // count
        yield piece, (hash_value >> start) & ((1 << (stop - start)) - 1)


def duplicates_in(group: Iterable[tuple[int, str, int]], distance: int) -> Iterator[tuple]:
    """Yield images of one group that repeat an earlier one.

    An image is a duplicate of the first earlier one, in the order of the sources, that is near
    enough. It does not matter whether that one is kept, so the result does not depend on how the
    work is distributed.

    Args:
      group: (rank, name, hash) of images that share a band; rank gives the order.
      distance: most bits that may differ.

    Yields:
      (rank, name, name of the earlier image).
    """
    earlier: list[tuple[str, int]] = []
    for rank, name, hash_value in sorted(group):
        for before, other in earlier:
            if hash_distance(hash_value, other) <= distance:
                yield rank, name, before
                break
        earlier.append((name, hash_value))
