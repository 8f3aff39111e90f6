"""Cutting training crops out of images; an image that is too small is enlarged first.

A part of an image is enlarged bit for bit as Pillow enlarges the whole. Pillow can enlarge a part
too, but takes its position in single precision. At the far end of a long strip that gives another
part.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

# Most pixels of an enlarged image that is made as a whole, 64 MB. Of a larger one, such as a strip
# one pixel wide becomes, only the crop is made.
_WHOLE_PIXELS = 1 << 24
# Parameters of Pillow's cubic, and the bits of its integer weights.
_A = -0.5
_SUPPORT = 2.0
_BITS = 32 - 8 - 2


class Regions(Protocol):
    """An image whose parts can be read without the rest."""

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    def region(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Read a rectangle: [height, width, 3] uint8."""


@dataclass(frozen=True)
class EnlargedPicture:
    """An image that is enlarged lazily, region by region.

    Attributes:
      pixels: [h, w, 3] uint8.
      height, width: size after enlargement; not below h and w.
    """

    pixels: np.ndarray
    height: int
    width: int

    def region(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Enlarge a rectangle, in coordinates of the result: [height, width, 3] uint8."""
        rows, row_weights = _taps(self.pixels.shape[0], self.height, top, height)
        columns, column_weights = _taps(self.pixels.shape[1], self.width, left, width)
        first = rows.min()
        strip = self.pixels[first : rows.max() + 1]
        # Pillow resizes along rows first and rounds to 8 bits in between.
        strip = _mixed(strip[:, columns], column_weights[None, :, :, None], axis=2)
        return _mixed(strip[rows - first], row_weights[:, :, None, None], axis=1)


def _taps(size: int, enlarged: int, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(positions in the image, their integer weights), both [count, taps].

    Weights beyond the image's edge are 0; the others sum to about 2^22.
    """
    scale = size / enlarged
    center = (np.arange(start, start + count) + 0.5) * scale
    first = np.maximum((center - _SUPPORT + 0.5).astype(np.int64), 0)
    end = np.minimum((center + _SUPPORT + 0.5).astype(np.int64), size)
    position = first[:, None] + np.arange(int(2 * _SUPPORT) + 1)
    weight = _cubic(position - center[:, None] + 0.5)
    weight[position >= end[:, None]] = 0.0
    # Sum in Pillow's order: the last bit may depend on it.
    total = np.zeros(count)
    for tap in weight.T:
        total += tap
    weight = weight * (1.0 / total)[:, None] * (1 << _BITS)
    rounded = np.trunc(np.where(weight < 0, weight - 0.5, weight + 0.5)).astype(np.int64)
    return np.minimum(position, size - 1), rounded


def _cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near = ((_A + 2.0) * x - (_A + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * _A
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _mixed(values: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    """Sum values with weights along an axis and round to 8 bits."""
    total = (values * weights).sum(axis) + (1 << (_BITS - 1))
    return np.clip(total >> _BITS, 0, 255).astype(np.uint8)


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
