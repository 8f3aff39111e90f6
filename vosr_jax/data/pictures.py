"""Reading image files of any kind as 8-bit RGB."""

import io
import os
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

PICTURE_SUFFIXES = frozenset(
    ".avif .bmp .gif .jfif .jp2 .jpe .jpeg .jpg .png .ppm .pgm .tga .tif .tiff .webp".split()
)


class UnreadablePicture(Exception):
    """A file that is not a whole image; the message is the reason."""


def is_picture_path(path: str | os.PathLike) -> bool:
    """Whether a path has an image's suffix and is not hidden."""
    name = os.path.basename(path)
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES


def read_picture(path: str | os.PathLike) -> np.ndarray:
    """Read and decode an image file; see decode_picture.

    Raises:
      UnreadablePicture: the file cannot be opened or decoded.
    """
    try:
        with open(path, "rb") as file:
            return decode_picture(read_all(file))
    except OSError as error:
        raise UnreadablePicture(error.strerror or str(error)) from error


def read_all(file: BinaryIO) -> bytes:
    """Read the rest of an open file; raises UnreadablePicture."""
    try:
        return file.read()
    except OSError as error:
        raise UnreadablePicture(error.strerror or str(error)) from error


def decode_picture(data: bytes) -> np.ndarray:
    """Decode a whole image: [H, W, 3] uint8 RGB, read-only; see decode_image."""
    return np.asarray(decode_image(data))


def decode_image(data: bytes) -> Image.Image:
    """Decode an image and turn it upright by its EXIF orientation.

    Grey and palette images become RGB, 16-bit ones are reduced to 8 bits, transparency is blended
    over white. Of several frames the first is used.

    Args:
      data: the file's content.

    Returns:
      A Pillow image of mode RGB. Converting all of it to an array takes twice as long as decoding
      a JPEG file, so cut the crop first.

    Raises:
      UnreadablePicture: not an image, a truncated one, or one of implausible size.
    """
    if not data:
        raise UnreadablePicture("the file is empty")
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return _to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:
        # Pillow's decoders raise errors of any kind on broken bytes, struct.error included.
        raise UnreadablePicture(f"{type(error).__name__}: {error}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bit_grey(image)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _eight_bit_grey(image: Image.Image) -> np.ndarray:
    """Convert a 16-bit, 32-bit or floating-point grey image to [H, W] uint8."""
    values = np.asarray(image).astype(np.float64)
    if image.mode == "F":
        # Floating-point images hold [0, 1] or grey levels; the file does not say which.
        values = values * 255 if values.max(initial=0) <= 1 else values
    else:
        # Pillow opens 16-bit files as "I" or "I;16"; both count to 65535.
        values = values / 257
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)
