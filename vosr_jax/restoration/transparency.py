"""Restore transparency as a separate image, and remove what the model invents in it."""

import cv2
import numpy as np
from PIL import Image

# In pixels of the source: the reach of the bicubic filter.
_REACH = 2
# Limits on texture that a model invents on almost plain areas, of 255. Edges are not limited.
_FREE = 2.0
_ROUGH_FROM = 3.0
_GAIN = 4.0


def as_pixels(alpha: np.ndarray) -> np.ndarray:
    """Transparency [H, W] as a grey image [H, W, 3] that a model can restore."""
    return np.repeat(alpha[..., None], 3, axis=-1)


def within_source(restored: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Keep restored transparency close to the source's away from its edges.

    Areas that are wholly opaque or clear in the source stay so. A soft shadow curves slightly but
    has no edge; it keeps the source's values to within two levels of 255. Only edges are redrawn.

    Args:
      restored: [H, W, 3] float, nominally in [0, 1].
      alpha: the source's, [h, w] uint8 or uint16.

    Returns:
      [H, W], the type of `alpha`.
    """
    height, width = restored.shape[:2]
    deepest = np.iinfo(alpha.dtype).max
    source = alpha.astype(np.float32) * (255 / deepest)
    around = np.ones((2 * _REACH + 1,) * 2, np.uint8)
    lowest, highest = (
        cv2.resize(extreme(source, around), (width, height), interpolation=cv2.INTER_NEAREST)
        for extreme in (cv2.erode, cv2.dilate)
    )
    # Distance of the source from a local plane: small on slopes, large at edges.
    mean = cv2.blur(source, (2 * _REACH + 1,) * 2, borderType=cv2.BORDER_REFLECT)
    rough = cv2.dilate(np.abs(source - mean), around)
    free = _FREE + _GAIN * np.maximum(rough - _ROUGH_FROM, 0)
    free = cv2.resize(free, (width, height), interpolation=cv2.INTER_LINEAR)
    resized = Image.fromarray(source).resize((width, height), Image.Resampling.BICUBIC)
    plain = np.asarray(resized)
    values = np.clip(restored.mean(-1) * 255, plain - free, plain + free)
    values = np.clip(values, lowest, highest) * (deepest / 255)
    return np.rint(values).astype(alpha.dtype)
