"""Cutting a training crop out of a picture."""

from typing import Protocol

import numpy as np
from PIL import Image

from vosr_jax.data.enlarging import EnlargedPicture

# Pixels of an enlarged picture that Pillow makes as a whole, 64 MB; of a larger one, such as a
# strip one pixel wide becomes, only the crop is made.
_WHOLE_PIXELS = 1 << 24


class Regions(Protocol):
    """A picture of which parts can be had without the rest."""

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    def region(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """A rectangle: [height, width, 3] uint8."""


def at_least(
    image: Image.Image, side: int, whole_pixels: int = _WHOLE_PIXELS
) -> tuple[Image.Image | EnlargedPicture, bool]:
    """Enlarge a picture whose shorter side is below `side`, bicubically, as the official loader.

    Args:
      image: mode RGB.
      side: in pixels.
      whole_pixels: above so many the picture is enlarged where it is asked for alone; the pixels
        are the same.

    Returns:
      (the picture, whether it was enlarged).
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
    """A square at a random place, mirrored half of the time if `flip`: [side, side, 3] uint8."""
    top = int(rng.integers(picture.height - side + 1))
    left = int(rng.integers(picture.width - side + 1))
    if isinstance(picture, Image.Image):
        square = np.asarray(picture.crop((left, top, left + side, top + side)))
    else:
        square = picture.region(top, left, side, side)
    return np.ascontiguousarray(square[:, ::-1]) if flip and rng.random() < 0.5 else square
