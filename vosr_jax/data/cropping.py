"""Cutting training crops out of images."""

from typing import Protocol

import numpy as np
from PIL import Image

from vosr_jax.data.enlarging import EnlargedPicture

# Most pixels of an enlarged image that is made as a whole, 64 MB. Of a larger one, such as a strip
# one pixel wide becomes, only the crop is made.
_WHOLE_PIXELS = 1 << 24


class Regions(Protocol):
    """An image whose parts can be read without the rest."""

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    def region(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Read a rectangle: [height, width, 3] uint8."""


def at_least(
    image: Image.Image, side: int, whole_pixels: int = _WHOLE_PIXELS
) -> tuple[Image.Image | EnlargedPicture, bool]:
    """Enlarge an image whose shorter side is below `side`, bicubically, as the official loader.

    Args:
      image: mode RGB.
      side: smallest side, pixels.
      whole_pixels: an image with more pixels is enlarged lazily, region by region; its pixels
        are the same.

    Returns:
      (the image, whether it was enlarged).
    """
    shorter = min(image.size)
    if shorter >= side:
        return image, False
    scale = side / shorter
    size = round(image.width * scale), round(image.height * scale)
    if size[0] * size[1] > whole_pixels:
        return EnlargedPicture(np.asarray(image), *reversed(size)), True
    return image.resize(size, Image.Resampling.BICUBIC), True


def random_crop(
    picture: Image.Image | Regions, side: int, rng: np.random.Generator, flip: bool
) -> np.ndarray:
    """Cut a random square, mirrored half of the time if `flip`: [side, side, 3] uint8."""
    top = int(rng.integers(picture.height - side + 1))
    left = int(rng.integers(picture.width - side + 1))
    if isinstance(picture, Image.Image):
        square = np.asarray(picture.crop((left, top, left + side, top + side)))
    else:
        square = picture.region(top, left, side, side)
    return np.ascontiguousarray(square[:, ::-1]) if flip and rng.random() < 0.5 else square
