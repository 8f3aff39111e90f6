"""Conversion of float images to eight bits."""

import numpy as np


def to_uint8(picture: np.ndarray, *, truncate: bool = False) -> np.ndarray:
    """Convert [0, 1] to 0..255, rounded; `truncate` rounds down, as the official scripts do."""
    scaled = np.clip(picture, 0, 1).astype(np.float32) * 255
    return (scaled if truncate else np.rint(scaled)).astype(np.uint8)
