"""Cutting a training crop out of a picture."""

import numpy as np
from PIL import Image

from vosr_jax.data.raw_pictures import RawPicture


def at_least(image: Image.Image, side: int) -> tuple[Image.Image, bool]:
    """Enlarge a picture whose shorter side is below `side`, bicubically, as the official loader.

    Returns:
      (the picture, whether it was enlarged).
    """
    shorter = min(image.size)
    if shorter >= side:
        return image, False
    scale = side / shorter
    size = round(image.width * scale), round(image.height * scale)
    return image.resize(size, Image.Resampling.BICUBIC), True


def random_crop(
    picture: Image.Image | RawPicture, side: int, rng: np.random.Generator, flip: bool
) -> np.ndarray:
    """A square at a random place, mirrored half of the time if `flip`: [side, side, 3] uint8."""
    top = int(rng.integers(picture.height - side + 1))
    left = int(rng.integers(picture.width - side + 1))
    if isinstance(picture, RawPicture):
        square = picture.region(top, left, side, side)
    else:
        square = np.asarray(picture.crop((left, top, left + side, top + side)))
    return np.ascontiguousarray(square[:, ::-1]) if flip and rng.random() < 0.5 else square
