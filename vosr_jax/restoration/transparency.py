"""Transparency that is restored like a picture of its own, without what it must not gain."""

import cv2
import numpy as np
from PIL import Image

# In pixels of the source: as far as bicubic enlargement looks.
_REACH = 2


def as_picture(alpha: Image.Image) -> Image.Image:
    """Transparency, mode L, as the grey picture that a model restores."""
    return alpha.convert("RGB")


def within_source(restored: np.ndarray, alpha: Image.Image) -> Image.Image:
    """Keep restored transparency between the source's extremes around every place.

    What is wholly opaque or clear in the source stays so; only borders are redrawn.

    Args:
      restored: [H, W, 3] float, nominally in [0, 1].
      alpha: the source's, mode L.

    Returns:
      Mode L, W x H.
    """
    height, width = restored.shape[:2]
    source = np.asarray(alpha)
    around = np.ones((2 * _REACH + 1,) * 2, np.uint8)
    lowest, highest = (
        cv2.resize(extreme(source, around), (width, height), interpolation=cv2.INTER_NEAREST)
        for extreme in (cv2.erode, cv2.dilate)
    )
    values = np.rint(np.clip(restored.mean(-1), 0, 1) * 255)
    return Image.fromarray(np.clip(values, lowest, highest).astype(np.uint8))
