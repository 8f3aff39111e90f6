"""Comparison of a photo before and after, with a measure of its colour shift."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vosr_jax.files.photo import Photo
from vosr_jax.files.photo_reading import read_photo
from vosr_jax.metrics.fidelity import colour_shift
from vosr_jax.restoration.inputs import as_photo
from vosr_jax.restoration.upscaler import Upscaler

_LABEL_HEIGHT = 16
_LONGEST = 160


def local_colour_shift(source: Photo, result: Photo) -> float:
    """Mean absolute difference of 32-pixel means, in grey levels of 255.

    Args:
      source: resized bicubically to the result's size.
      result: its transparency is ignored.
    """
    enlarged = source.rgb.resize(result.size, Image.Resampling.BICUBIC)
    return colour_shift(np.asarray(result.rgb), np.asarray(enlarged))


def side_by_side(source: Photo, result: Photo, shift: float) -> Photo:
    """Join input (pixels repeated), bicubic and result from left to right, with labels below.

    Args:
      source: the input photo.
      result: of any size; the comparison takes its profile.
      shift: from `local_colour_shift`, for the label.
    """
    width, height = result.size
    row = Image.new("RGB", (3 * width, height + _LABEL_HEIGHT), "white")
    panels = (
        (source.rgb.resize(result.size, Image.Resampling.NEAREST), "input"),
        (source.rgb.resize(result.size, Image.Resampling.BICUBIC), "bicubic"),
        (result.rgb, f"restored, colour shift {shift:.2f}"),
    )
    draw = ImageDraw.Draw(row)
    for number, (panel, label) in enumerate(panels):
        row.paste(panel, (number * width, 0))
        draw.text((number * width + 3, height + 2), label, fill="black")
    grey = result.grey and (result.icc_profile or b"")[16:20] == b"GRAY"
    return Photo(np.asarray(row), grey=grey, icc_profile=result.icc_profile)


def before_and_after(model: str | Path, photo: Path) -> Image.Image:
    """Show a photo of at most 160 px per side, its bicubic enlargement and the model's result.

    Args:
      model: as in `Upscaler.from_pretrained`.
      photo: the file; a larger photo is reduced first.
    """
    small = read_photo(photo).rgb
    small.thumbnail((_LONGEST, _LONGEST), Image.Resampling.BICUBIC)
    source = as_photo(small)
    result = Upscaler.from_pretrained(model)(source, scale=4, output="photo")
    return side_by_side(source, result, local_colour_shift(source, result)).rgb
