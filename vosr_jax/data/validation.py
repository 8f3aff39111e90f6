"""Fixed pairs for validation during training."""

import logging
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vosr_jax.data.cropping import at_least, random_crop
from vosr_jax.data.degradation import Settings, degrade
from vosr_jax.data.degradation.noise import eight_bits
from vosr_jax.data.pictures import UnreadablePicture, read_picture
from vosr_jax.errors import UserError

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pair:
    """A crop and its degraded versions.

    Attributes:
      name: the image's name with the crop's index.
      hr: [side, side, 3] uint8.
      lr: [side / scale, side / scale, 3] uint8.
      lq: lr resized back to side before rounding, [side, side, 3] uint8.
    """

    name: str
    hr: np.ndarray
    lr: np.ndarray
    lq: np.ndarray


def readable_pictures(files: Sequence[str | Path], count: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, [H, W, 3] uint8) of the first readable files, one after another.

    No more files are opened than needed. An unreadable one is logged and the next takes its place,
    since a run must not end because of a validation image.

    Args:
      files: image files in a fixed order.
      count: most images to yield.

    Raises:
      UserError: none can be read.
    """
    given, last = 0, None
    for file in files:
        if given == count:
            return
        try:
            pixels = read_picture(file)
        except UnreadablePicture as error:
            last = f"the validation picture {file} cannot be read: {error}"
            _LOG.warning("%s; the next is taken in its place", last)
            continue
        given += 1
        yield Path(file).stem, pixels
    if not given and last:
        raise UserError(f"{last}; nor can any other")


def validation_pairs(
    pictures: Iterable[str | Path | tuple[str, np.ndarray]],
    *,
    crop_size: int,
    scale: int,
    seed: int,
    degradation: Settings,
    crops_per_picture: int = 1,
) -> list[Pair]:
    """Make pairs that depend on the images' names, their pixels and the seed alone.

    Args:
      pictures: files, or (name, [H, W, 3] uint8); smaller ones are enlarged to the crop.
      crop_size: side of the crops, pixels.
      scale: factor between HR and LR size.
      seed: seed of the crops' positions and the degradation.
      degradation: settings of the random degradation.
      crops_per_picture: number of crops per image.

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
