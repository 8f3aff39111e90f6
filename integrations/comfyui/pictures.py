"""ComfyUI's batches of pictures as single arrays, and back."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

_GAP = 8
_LINE = 2
_WHITE = 255


def of_images(images: Any) -> list[np.ndarray]:
    """A picture each of a batch.

    Args:
      images: [B, H, W, C] float tensor with C 1, 3 or 4, nominally in 0 to 1.

    Returns:
      [H, W, C] float in 0 to 1, C 3 or 4; NaN stays, for the upscaler to refuse.

    Raises:
      ValueError: another shape, or no picture.
    """
    values = np.asarray(images.detach().cpu())
    if values.ndim != 4 or values.shape[-1] not in (1, 3, 4) or 0 in values.shape:
        raise ValueError(
            "an IMAGE must be [batch, height, width, 3 or 4 channels] and not empty, not "
            f"{list(values.shape)}"
        )
    if values.shape[-1] == 1:
        values = values.repeat(3, axis=-1)
    # Other nodes overshoot a little, and ComfyUI clips only where it saves.
    return list(np.clip(values, 0, 1))


def to_images(pictures: Sequence[Any]) -> Any:
    """A batch of pictures of one size.

    Args:
      pictures: PIL images or uint8 [H, W, C].

    Returns:
      [B, H, W, C] float32 tensor in 0 to 1; SaveImage makes the same 8 bits of it.
    """
    import torch

    stacked = np.stack([np.asarray(picture) for picture in pictures])
    return torch.from_numpy(stacked.astype(np.float32) / np.float32(255))


def side_by_side(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Before at the size of after, a white gap, and after; uint8 [H, 2 W + 8, 3].

    Args:
      before, after: [h, w, C] and [H, W, C] float in 0 to 1.
    """
    left, right = _pair(before, after)
    gap = np.full((right.shape[0], _GAP, 3), _WHITE, np.uint8)
    return np.concatenate([left, gap, right], axis=1)


def split(before: np.ndarray, after: np.ndarray, position: float) -> np.ndarray:
    """Before to the left of a white line and after to its right; uint8 [H, W, 3].

    Args:
      before, after: [h, w, C] and [H, W, C] float in 0 to 1.
      position: of the line, 0 to 1; at the ends there is none.
    """
    left, right = _pair(before, after)
    width = right.shape[1]
    column = round(position * width)
    made = np.concatenate([left[:, :column], right[:, column:]], axis=1)
    if 0 < column < width:
        made[:, max(column - _LINE // 2, 0) : column + _LINE // 2] = _WHITE
    return made


def _pair(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    left, right = (np.rint(picture[..., :3] * 255).astype(np.uint8) for picture in (before, after))
    size = right.shape[1], right.shape[0]
    if left.shape != right.shape:
        left = np.asarray(Image.fromarray(left).resize(size, Image.Resampling.BICUBIC))
    return left, right
