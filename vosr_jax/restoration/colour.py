"""Give a restored image the colours and the transparency of its low-quality source.

Both fixes of the colours are those of the official inference scripts, applied to float images.
Transparency is restored as an image of its own, and what the model invents in it is removed.
"""

import cv2
import numpy as np
from PIL import Image

from vosr_jax.restoration.settings import FIXES

_EPSILON = 1e-5
_SIGMA = 5.0
# In pixels of the source: the reach of the bicubic filter.
_REACH = 2
# Limits on texture that a model invents on almost plain areas, of 255. Edges are not limited.
_FREE = 2.0
_ROUGH_FROM = 3.0
_GAIN = 4.0


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


def alpha_as_pixels(alpha: np.ndarray) -> np.ndarray:
    """Transparency [H, W] as a grey image [H, W, 3] that a model can restore."""
    return np.repeat(alpha[..., None], 3, axis=-1)


def alpha_within_source(restored: np.ndarray, alpha: np.ndarray) -> np.ndarray:
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
