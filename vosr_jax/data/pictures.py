"""Reading image files of any kind as 8-bit RGB: whole, or a part of an uncompressed one.

PPM, BMP and uncompressed TIFF files store plain pixels, so the rows of a crop can be read alone.
Compressed files are decoded whole, for three reasons. A PNG must be unpacked from its start. JPEG
decoders that skip parts give other pixels at the borders. A truncated file must not pass for a
whole one because the crop lies above the cut.
"""

import io
import os
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

PICTURE_SUFFIXES = frozenset(
    ".avif .bmp .gif .jfif .jp2 .jpe .jpeg .jpg .png .ppm .pgm .tga .tif .tiff .webp".split()
)
_ORIENTATION = 0x0112
# PPM, BMP, and TIFF in either byte order.
_STARTS = (b"P6", b"BM", b"II*\0", b"MM\0*")


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


@dataclass(frozen=True)
class _Tile:
    """A rectangle of pixels stored row after row in the file.

    Attributes:
      left, top, right, bottom: its position in the image.
      offset: position of its first byte in the file.
      stride: bytes from one row to the next.
      upward: the first row in the file is the lowest.
      blue_first: the channels are BGR.
    """

    left: int
    top: int
    right: int
    bottom: int
    offset: int
    stride: int
    upward: bool
    blue_first: bool

    @property
    def end(self) -> int:
        """Position in the file where its bytes end; the last row may lack its padding."""
        return self.offset + (self.bottom - self.top - 1) * self.stride + self.row_bytes

    @property
    def row_bytes(self) -> int:
        return 3 * (self.right - self.left)


@dataclass(frozen=True)
class RawPicture:
    """An open file of uncompressed 8-bit RGB pixels.

    Attributes:
      height, width: size of the image, pixels.
      tiles: layout of the pixels in the file.
    """

    file: BinaryIO
    height: int
    width: int
    tiles: tuple[_Tile, ...]

    def region(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Read a rectangle: [height, width, 3] uint8; raises UnreadablePicture."""
        result = np.zeros((height, width, 3), np.uint8)
        for tile in self.tiles:
            first, last = max(top, tile.top), min(top + height, tile.bottom)
            start, stop = max(left, tile.left), min(left + width, tile.right)
            if first < last and start < stop:
                rows = self._rows(tile, first, last)[:, start - tile.left : stop - tile.left]
                result[first - top : last - top, start - left : stop - left] = rows
        return result

    def _rows(self, tile: _Tile, first: int, last: int) -> np.ndarray:
        """Read rows of a tile over its whole width."""
        skipped = tile.bottom - last if tile.upward else first - tile.top
        size = (last - first - 1) * tile.stride + tile.row_bytes
        try:
            self.file.seek(tile.offset + skipped * tile.stride)
            data = self.file.read(size)
        except OSError as error:
            raise UnreadablePicture(error.strerror or str(error)) from error
        if len(data) < size:
            raise UnreadablePicture("the file ends before its pixels do")
        shape = last - first, tile.right - tile.left, 3
        rows = np.ndarray(shape, np.uint8, data, strides=(tile.stride, 3, 1))
        rows = rows[::-1] if tile.upward else rows
        return rows[..., ::-1] if tile.blue_first else rows


def raw_picture(file: BinaryIO) -> RawPicture | None:
    """Open an image if it is uncompressed 8-bit RGB, upright and whole; else return None.

    The file is left at its start.
    """
    try:
        start = file.read(4)
        file.seek(0)
        if not start.startswith(_STARTS):
            return None
        image = Image.open(file)
        tiles = _tiles(image)
        upright = image.getexif().get(_ORIENTATION, 1) == 1
        size = file.seek(0, os.SEEK_END)
    except Exception:
        # Decoding the whole file reports what is wrong with it.
        return None
    finally:
        file.seek(0)
    if not tiles or not upright or max(tile.end for tile in tiles) > size:
        return None
    return RawPicture(file, image.height, image.width, tiles)


def _tiles(image: Image.Image) -> tuple[_Tile, ...]:
    """Pillow's layout of the pixels in the file, if all of it is plain 8-bit RGB; else ()."""
    tiles = []
    for codec, extents, offset, arguments in getattr(image, "tile", ()):
        plain = (arguments, 0, 1) if isinstance(arguments, str) else arguments
        if image.mode != "RGB" or codec != "raw" or plain[0] not in ("RGB", "BGR"):
            return ()
        order, stride, step = plain
        stride = stride or 3 * (extents[2] - extents[0])
        left, top, right, bottom = extents
        tiles.append(_Tile(left, top, right, bottom, offset, stride, step < 0, order == "BGR"))
    return tuple(tiles)
