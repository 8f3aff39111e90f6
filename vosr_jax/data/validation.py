"""Fixed pairs that a model is judged by while it trains."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vosr_jax.data.cropping import at_least, random_crop
from vosr_jax.data.degradation import RealESRGANSettings, degrade
from vosr_jax.data.degradation.noise import eight_bits
from vosr_jax.data.pictures import UnreadablePicture, read_picture
from vosr_jax.errors import UserError


@dataclass(frozen=True)
class Pair:
    """A crop and its degraded versions.

    Attributes:
      name: of the picture, with the crop's number.
      hr: [side, side, 3] uint8.
      lr: [side / scale, side / scale, 3] uint8.
      lq: lr resized back before it was rounded, [side, side, 3] uint8.
    """

    name: str
    hr: np.ndarray
    lr: np.ndarray
    lq: np.ndarray


def validation_pairs(
    pictures: Sequence[str | Path | tuple[str, np.ndarray]],
    *,
    crop_size: int,
    scale: int,
    seed: int,
    degradation: RealESRGANSettings,
    crops_per_picture: int = 1,
) -> list[Pair]:
    """Pairs that depend on the pictures' names, their pixels and the seed alone.

    Args:
      pictures: files, or (name, [H, W, 3] uint8); smaller ones are enlarged to the crop.
      crop_size: side of the crops, pixels.
      scale: lr is this much smaller.
      seed: of the crops' places and the degradation.
      degradation: what may happen to a crop.
      crops_per_picture: how many crops of each picture.

    Raises:
      UserError: a file cannot be read.
    """
    pairs = []
    for picture in pictures:
        name, pixels = picture if isinstance(picture, tuple) else _read(picture)
        image, _ = at_least(Image.fromarray(pixels), crop_size)
        for number in range(crops_per_picture):
            rng = np.random.default_rng((seed, zlib.crc32(name.encode()), number))
            hr = random_crop(image, crop_size, rng, flip=False)
            lr, lq = degrade(hr, rng, degradation, scale)
            pairs.append(Pair(f"{name}-{number}", hr, eight_bits(lr), lq))
    return pairs


def _read(path: str | Path) -> tuple[str, np.ndarray]:
    try:
        return Path(path).stem, read_picture(path)
    except UnreadablePicture as error:
        raise UserError(f"the validation picture {path} cannot be read: {error}") from error
