"""Filters: which images are kept, and why others are not."""

from dataclasses import dataclass

import numpy as np

from vosr_jax.data.preparation.measures import (
    blockiness,
    grey_levels,
    perceptual_hash,
    sharpness,
)
from vosr_jax.data.preparation.settings import FilterSettings

UNREADABLE = "unreadable"
TOO_SMALL = "too small"
BLOCKY = "blocky"
BLURRED = "blurred"
DUPLICATE = "duplicate"
REASONS = (UNREADABLE, TOO_SMALL, BLOCKY, BLURRED, DUPLICATE)


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
