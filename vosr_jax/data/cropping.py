"""Cutting a training crop out of a picture."""

import numpy as np
from PIL import Image

from vosr_jax.data.raw_pictures import RawPicture


def at_least(picture: np.ndarray, side: int) -> tuple[np.ndarray, bool]:
    """Enlarge a picture whose shorter side is below `side`, bicubically, as the official loader.

    Args:
      picture: [H, W, 3] uint8.

    Returns:
      (the picture, whether it was enlarged).
    """
    height, width = picture.shape[:2]
    shorter = min(height, width)
    if shorter >= side:
        return picture, False
    scale = side / shorter
    size = round(width * scale), round(height * scale)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)), True


def crop(picture: np.ndarray, top: int, left: int, side: int) -> np.ndarray:
    """A square of a picture: [side, side, 3], memory of its own."""
    return np.ascontiguousarray(picture[top : top + side, left : left + side])


def random_crop(
    picture: np.ndarray | RawPicture, side: int, rng: np.random.Generator, flip: bool
) -> np.ndarray:
    """A square at a random place, mirrored half of the time if `flip`: [side, side, 3] uint8."""
    top = int(rng.integers(picture.shape[0] - side + 1))
    left = int(rng.integers(picture.shape[1] - side + 1))
    if isinstance(picture, RawPicture):
        square = picture.region(top, left, side, side)
    else:
        square = crop(picture, top, left, side)
    return np.ascontiguousarray(square[:, ::-1]) if flip and rng.random() < 0.5 else square
