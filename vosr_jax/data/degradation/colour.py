"""Colour changes that the recipe supports but the default settings leave out."""

from dataclasses import dataclass

import numpy as np

from vosr_jax.data.degradation.noise import greyscale

JITTERS = ("brightness", "contrast", "saturation", "hue")


def turn_grey(image: np.ndarray) -> np.ndarray:
    """Turn [H, W, 3] float32 grey in all three channels."""
    return np.repeat(greyscale(image)[..., None], 3, axis=2)


def _blend(image, other, factor):
    return np.clip(image * np.float32(factor) + other * np.float32(1 - factor), 0, 1)


def adjust_brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Move towards black (below 1) or away from it, clipped to [0, 1]."""
    return _blend(image, np.float32(0), factor)


def adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Move towards the mean grey (below 1) or away from it, clipped to [0, 1]."""
    return _blend(image, greyscale(image).mean(), factor)


def adjust_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Move towards the grey image (below 1) or away from it, clipped to [0, 1]."""
    return _blend(image, greyscale(image)[..., None], factor)


def adjust_hue(image: np.ndarray, shift: float) -> np.ndarray:
    """Turn the hue by `shift` of a full circle.

    It matches torchvision, which the original calls: values outside [0, 1] are not clipped before,
    and in the result only the channels below the brightest are clipped.
    """
    high, low = image.max(axis=-1), image.min(axis=-1)
    chroma = high - low
    saturation = chroma / np.where((chroma == 0) | (high == 0), 1, high)
    red, green, blue = np.moveaxis(
        (high[..., None] - image) / np.where(chroma == 0, 1, chroma)[..., None], -1, 0
    )
    sixths = np.where(
        image[..., 0] == high,
        blue - green,
        np.where(image[..., 1] == high, 2 + red - blue, 4 + green - red),
    )
    sixths = 6 * ((sixths / 6 + 1 + shift) % 1)
    sector = np.floor(sixths)
    past = sixths - sector
    falling = np.clip(high * (1 - saturation * past), 0, 1)
    rising = np.clip(high * (1 - saturation * (1 - past)), 0, 1)
    lowest = np.clip(high * (1 - saturation), 0, 1)
    # The red of every sector; green and blue lag two and four sectors behind.
    course = np.stack([high, falling, lowest, lowest, rising, high])
    place = sector.astype(np.int64)
    channels = [
        np.take_along_axis(course, ((place + behind) % 6)[None], axis=0)[0] for behind in (0, 4, 2)
    ]
    return np.stack(channels, axis=-1).astype(np.float32)


def jitter(image: np.ndarray, kind: str, amount: float) -> np.ndarray:
    """Apply one of JITTERS to an image, [H, W, 3] float32."""
    functions = {
        "brightness": adjust_brightness,
        "contrast": adjust_contrast,
        "saturation": adjust_saturation,
        "hue": adjust_hue,
    }
    return functions[kind](image, amount)


@dataclass(frozen=True)
class TurnGrey:
    """Turn the image grey in all channels."""

    def apply(self, image: np.ndarray) -> np.ndarray:
        return turn_grey(image)


@dataclass(frozen=True)
class ColourJitter:
    """One change of colour; kind is one of colour.JITTERS."""

    kind: str
    amount: float

    def apply(self, image: np.ndarray) -> np.ndarray:
        return jitter(image, self.kind, self.amount)
