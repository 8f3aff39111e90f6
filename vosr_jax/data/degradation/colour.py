"""Changes of colour that the recipe can make but the shipped parameters leave out."""

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
    """Turn the hue by `shift` of a full circle.

    As torchvision, whose function the original calls: what lies outside [0, 1] is not clipped
    before, and of the result only what is not the brightest channel.
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
    # Of every sector the red; green and blue run two and four sectors behind.
    course = np.stack([high, falling, lowest, lowest, rising, high])
    place = sector.astype(np.int64)
    channels = [
        np.take_along_axis(course, ((place + behind) % 6)[None], axis=0)[0] for behind in (0, 4, 2)
    ]
    return np.stack(channels, axis=-1).astype(np.float32)


def jitter(image: np.ndarray, kind: str, amount: float) -> np.ndarray:
    """Apply one of JITTERS to a [H, W, 3] float32 picture."""
    functions = {
        "brightness": adjust_brightness,
        "contrast": adjust_contrast,
        "saturation": adjust_saturation,
        "hue": adjust_hue,
    }
    return functions[kind](image, amount)
