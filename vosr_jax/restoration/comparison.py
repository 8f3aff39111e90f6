"""A picture before and after, side by side, with a figure of how far its colours moved."""

import numpy as np
from PIL import Image, ImageDraw

from vosr_jax.evaluation.metrics import colour_shift

_LABEL_HEIGHT = 16


def local_colour_shift(source: Image.Image, result: Image.Image) -> float:
    """Mean absolute difference of 32-pixel means, in grey levels of 255.

    Args:
      source: mode RGB, resized bicubically to the result's size.
      result: mode RGB, L, RGBA or LA; its transparency is left out.
    """
    enlarged = source.resize(result.size, Image.Resampling.BICUBIC)
    return colour_shift(np.asarray(result.convert("RGB")), np.asarray(enlarged))


def side_by_side(source: Image.Image, result: Image.Image, shift: float) -> Image.Image:
    """From left to right: the input with its pixels repeated, bicubic, the result; labels below.

    Args:
      source: mode RGB.
      result: of any size.
      shift: of `local_colour_shift`, for the label.
    """
    width, height = result.size
    row = Image.new("RGB", (3 * width, height + _LABEL_HEIGHT), "white")
    panels = (
        (source.resize(result.size, Image.Resampling.NEAREST), "input"),
        (source.resize(result.size, Image.Resampling.BICUBIC), "bicubic"),
        (result.convert("RGB"), f"restored, colour shift {shift:.2f}"),
    )
    draw = ImageDraw.Draw(row)
    for number, (panel, label) in enumerate(panels):
        row.paste(panel, (number * width, 0))
        draw.text((number * width + 3, height + 2), label, fill="black")
    if result.info.get("icc_profile"):
        row.info["icc_profile"] = result.info["icc_profile"]
    return row
