"""Changes of colour that the recipe can make but the shipped parameters leave out."""

import cv2
import numpy as np

from vosr_jax.data.degradation.noise import greyscale

JITTERS = ("brightness", "contrast", "saturation", "hue")


def turn_grey(image: np.ndarray) -> np.ndarray:
    """[H, W, 3] float32 -> the grey picture in all three channels."""
    return np.repeat(greyscale(image)[..., None], 3, axis=2)


def _blend(image, other, factor):
    return np.clip(image * np.float32(factor) + other * np.float32(1 - factor), 0, 1)


def adjust_brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Towards black (below 1) or away from it, clipped to [0, 1]."""
    return _blend(image, np.float32(0), factor)


def adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Towards the mean grey (below 1) or away from it, clipped to [0, 1]."""
    return _blend(image, greyscale(image).mean(), factor)


def adjust_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Towards the grey picture (below 1) or away from it, clipped to [0, 1]."""
    return _blend(image, greyscale(image)[..., None], factor)


def adjust_hue(image: np.ndarray, shift: float) -> np.ndarray:
    """Turn the hue by `shift` of a full circle; the picture is clipped to [0, 1]."""
    hsv = cv2.cvtColor(np.clip(image, 0, 1), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + 360 * shift) % 360
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def jitter(image: np.ndarray, kind: str, amount: float) -> np.ndarray:
    """Apply one of JITTERS to a [H, W, 3] float32 picture."""
    functions = {
        "brightness": adjust_brightness,
        "contrast": adjust_contrast,
        "saturation": adjust_saturation,
        "hue": adjust_hue,
    }
    return functions[kind](image, amount)
