"""Inputs of the upscaler as photos and plain numbers; photos enlarged and padded."""

import dataclasses
import hashlib
import math
import numbers
import operator
import os
from typing import IO, Any

import numpy as np
from PIL import Image, ImageFile

from vosr_jax.errors import UserError
from vosr_jax.files.photo import Photo, assemble, of_pillow
from vosr_jax.files.photo_reading import known_formats, read_photo
from vosr_jax.restoration.settings import UpscalerSettings

Picture = Image.Image | Photo | np.ndarray | str | os.PathLike[str] | bytes | IO[bytes]

_KINDS = "give a file, its bytes, a PIL image or an array"
_LARGEST_SEED = 1 << 32


def as_photo(image: Any) -> Photo:
    """Convert an image of any supported kind to a photo.

    Args:
      image: a path, a file's bytes or an open file, a PIL image, a photo, or an array of NumPy,
        JAX or PyTorch, [H, W] or [H, W, C] with 1 to 4 channels (grey, grey and alpha, RGB,
        RGBA), uint8, uint16 or float in [0, 1].

    Raises:
      UserError: the image is of another kind.
    """
    if isinstance(image, Photo):
        return image
    if isinstance(image, Image.Image):
        return _unread(image) or of_pillow(image)
    if isinstance(image, (str, os.PathLike)):
        return read_photo(image)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return read_photo(bytes(image))
    if hasattr(image, "read"):
        content = image.read()
        if not isinstance(content, bytes):
            raise UserError("a file must be opened for bytes, with mode 'rb'")
        return read_photo(content)
    if isinstance(image, np.ndarray) or hasattr(image, "__array__"):
        return _of_array(_as_array(image))
    raise UserError(f"{type(image).__name__} is no picture; {_KINDS}")


def _unread(image: Image.Image) -> Photo | None:
    """The photo in a file that Pillow has opened but not decoded; None for any other image.

    Reading the file here keeps all its bits. It also keeps Pillow from mapping a named TIFF with
    its rotated size.
    """
    fresh = isinstance(image, ImageFile.ImageFile) and getattr(image, "_im", image) is None
    file = getattr(image, "fp", None)
    if not fresh or file is None or image.format not in known_formats():
        return None
    if getattr(image, "is_animated", False):
        return None
    size = sorted(image.size)
    place = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(place)
    photo = read_photo(content, float("inf"))
    # The caller may have set a JPEG to decode at another size.
    return photo if sorted(photo.size) == size else None


def _as_array(image: Any) -> np.ndarray:
    if hasattr(image, "detach") and hasattr(image, "cpu"):
        image = image.detach().cpu()
    try:
        return np.asarray(image)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{type(image).__name__} is no array of pixels ({reason})") from error


def _of_array(values: np.ndarray) -> Photo:
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or not 1 <= values.shape[2] <= 4 or 0 in values.shape:
        hint = "; move the channels to the end" if _channels_first(values.shape) else ""
        raise UserError(
            f"an array must be [H, W] or [H, W, C] with 1 to 4 channels, not {list(values.shape)}"
            + hint
        )
    if np.issubdtype(values.dtype, np.floating):
        values = _of_floats(values)
    if values.dtype not in (np.uint8, np.uint16):
        raise UserError(f"an array must be uint8, uint16 or float in [0, 1], not {values.dtype}")
    count = values.shape[2]
    alpha = values[..., -1] if count in (2, 4) else None
    pixels = values[..., 0] if count < 3 else values[..., :3]
    # Copied, because the caller may write into the array later.
    return assemble(pixels.copy(), None if alpha is None else alpha.copy(), count < 3, None)


def _channels_first(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 or (len(shape) == 3 and shape[0] in (1, 2, 3, 4))


def _of_floats(values: np.ndarray) -> np.ndarray:
    """Convert values in [0, 1] to uint8."""
    if not np.isfinite(values).all():
        raise UserError("an array of floats holds NaN or infinity; give numbers from 0 to 1")
    lowest, highest = float(values.min()), float(values.max())
    if lowest < 0 or highest > 1:
        raise UserError(
            f"an array of floats must lie in [0, 1], not {lowest:g} to {highest:g}; divide or "
            "clip it"
        )
    return np.rint(values.astype(np.float32) * 255).astype(np.uint8)


def as_number(value: Any, name: str, bounds: str) -> float:
    """Convert to a plain number; its bounds are checked elsewhere.

    Raises:
      UserError: it is not a finite number; the message gives the name and the bounds.
    """
    number = isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))
    if not number or not math.isfinite(value):
        raise UserError(f"{name} must be a number from {bounds}, not {value!r}")
    return value if isinstance(value, (int, float)) else float(value)


def as_whole(value: Any, name: str) -> int:
    """Convert a value of any integer type to int.

    Raises:
      UserError: it is not a whole number; the message gives the name.
    """
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise UserError(f"{name} must be a whole number, not {value!r}") from None


def as_seed(seed: Any) -> int:
    """Convert to a seed that gives the same draws in every JAX configuration.

    Raises:
      UserError: it is not a whole number, or exceeds 32 bits.
    """
    seed = as_whole(seed, "seed")
    if not 0 <= seed < _LARGEST_SEED:
        raise UserError(f"seed must be from 0 to {_LARGEST_SEED - 1}, not {seed}")
    return seed


def as_plain(settings: UpscalerSettings) -> UpscalerSettings:
    """Convert the numbers among the settings to plain ones; most bounds are checked elsewhere.

    Raises:
      UserError: one of them is not a number, or not a whole one.
    """
    scale = as_number(settings.scale, "scale", "1 to 8")
    strength = as_number(settings.strength, "strength", "0 to 2")
    tile_size, vae_tile_size = settings.tile_size, settings.vae_tile_size
    if not (isinstance(tile_size, str) and tile_size == "auto"):
        try:
            tile_size = as_whole(tile_size, "tile_size")
        except UserError:
            raise UserError(
                f"tile_size must be auto, 0 for no tiles, or pixels, not {tile_size!r}"
            ) from None
    if vae_tile_size is not None:
        vae_tile_size = as_whole(vae_tile_size, "vae_tile_size")
    return dataclasses.replace(
        settings,
        scale=scale,
        strength=strength,
        tile_size=tile_size,
        tile_overlap=as_whole(settings.tile_overlap, "tile_overlap"),
        vae_tile_size=vae_tile_size,
    )


def picture_seed(seed: int, content: bytes) -> int:
    """Derive a photo's seed from the run's seed and the file's bytes, not its name or position.

    The result stays the same for any other photos in the run, any path, and any number of
    processes that share the folder.

    Returns:
      0 to 2^31 - 1.
    """
    digest = hashlib.sha256(f"{seed}:".encode() + hashlib.sha256(content).digest()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def enlarged(pixels: np.ndarray, scale: float) -> np.ndarray:
    """Resize [h, w, 3] uint8 or uint16 bicubically to [H, W, 3] float32 in [0, 1].

    8-bit images are rounded to 8 bits after resizing, as in the official programs.
    """
    size = enlarged_size((pixels.shape[1], pixels.shape[0]), scale)
    if pixels.dtype == np.uint8:
        resized = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
        return np.asarray(resized, np.float32) / 255
    channels = []
    for channel in np.moveaxis(pixels, -1, 0):
        image = Image.fromarray(channel.astype(np.float32))
        channels.append(np.asarray(image.resize(size, Image.Resampling.BICUBIC)))
    return np.clip(np.stack(channels, axis=-1) / np.float32(65535), 0, 1)


def enlarged_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(width, height) of the result for the source's (width, height)."""
    width, height = (max(round(scale * side), 1) for side in size)
    return width, height


def computed_side(side: int, multiple: int, shortest: int = 1) -> int:
    """Length of the side to compute for `side` pixels of the result.

    Args:
      side: of the result, in pixels.
      multiple: the computed side is a multiple of it, as the networks require.
      shortest: smallest side to compute.
    """
    return -(-max(side, shortest) // multiple) * multiple


def mirror(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pad [h, w, C] on the right and below to size (H, W), mirrored at the edge."""
    for axis, grown in enumerate(size):
        side = pixels.shape[axis]
        padding = [(0, 0)] * pixels.ndim
        padding[axis] = (0, grown - side)
        pixels = np.pad(pixels, padding, mode="reflect" if side > 1 else "edge")
    return pixels
