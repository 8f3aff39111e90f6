"""Give a restored image the colours of its low-quality source.

Both fixes are those of the official inference scripts, applied to float images.
"""

import cv2
import numpy as np
from PIL import Image

FIXES = ("adain", "wavelet", "none")

_EPSILON = 1e-5
_SIGMA = 5.0


def fix_colour(kind: str, restored: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Apply one of FIXES.

    Args:
      kind: "adain", "wavelet" or "none" (which only clips).
      restored: [H, W, 3] float, nominally in [0, 1].
      source: [h, w, 3] float in [0, 1], the low-quality image.

    Returns:
      [H, W, 3] float32 in [0, 1].

    Raises:
      ValueError: an unknown kind.
    """
    if kind == "adain":
        return adain(restored, source)
    if kind == "wavelet":
        return wavelet(restored, source)
    if kind == "none":
        return np.clip(restored, 0, 1).astype(np.float32)
    raise ValueError(f"unknown colour fix '{kind}'; choose one of {', '.join(FIXES)}")


def adain(restored: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Set each channel's mean and deviation (over N - 1) to the source's."""

    def statistics(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pixels = picture.reshape(-1, picture.shape[-1]).astype(np.float64)
        deviation = pixels.std(axis=0, ddof=1) if len(pixels) > 1 else np.zeros(pixels.shape[1])
        return pixels.mean(axis=0), deviation + _EPSILON

    mean, deviation = statistics(restored)
    source_mean, source_deviation = statistics(source)
    matched = (restored - mean) / deviation * source_deviation + source_mean
    return np.clip(matched, 0, 1).astype(np.float32)


def wavelet(restored: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Take the coarse colours (Gaussian, sigma 5 pixels) from the source; keep the detail.

    A source of another size is resized with Pillow's Lanczos filter first.
    """
    height, width = restored.shape[:2]
    if source.shape[:2] != (height, width):
        picture = Image.fromarray(np.rint(np.clip(source, 0, 1) * 255).astype(np.uint8))
        resized = picture.resize((width, height), Image.Resampling.LANCZOS)
        source = np.asarray(resized, np.float32) / 255

    def coarse(picture: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(np.ascontiguousarray(picture, np.float32), (0, 0), _SIGMA)

    return np.clip(coarse(source) + (restored - coarse(restored)), 0, 1).astype(np.float32)
