"""TIFF files: a check of their tags, reading and writing of 16 bits (TIFF 6.0).

Pillow misreads some kinds: it leaves 12 bits unscaled, ignores white as zero in 16 bits and takes
signed numbers as unsigned. So the tags are checked here first.
"""

import io
import struct
import sys
import zlib
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from vosr_jax.errors import UserError
from vosr_jax.files.colour_profiles import from_gamma
from vosr_jax.files.metadata import Metadata, exif_for

_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIPS, _SAMPLES, _ROWS, _SIZES, _ACROSS, _DOWN, _PLANAR = 273, 277, 278, 279, 282, 283, 284
_UNIT, _PREDICTOR, _WHITE, _PRIMARIES, _EXTRA, _FORMAT = 296, 317, 318, 319, 338, 339
_XMP, _IPTC, _ICC = 700, 33723, 34675

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
_KINDS = {
    _WHITE_IS_ZERO: ("grey, white is zero", (1, 2, 4, 8, 16)),
    _BLACK_IS_ZERO: ("grey", (1, 2, 4, 8, 12, 16)),
    _RGB: ("RGB", (8, 16)),
    _PALETTE: ("palette", (1, 2, 4, 8)),
    _CMYK: ("CMYK", (8, 16)),
    _YCBCR: ("YCbCr", (8,)),
    _LAB: ("Lab", (8,)),
}
_FORMATS = {2: "signed integers", 3: "floating-point numbers", 5: "complex integers", 6: "complex"}
_JPEGS = (6, 7)
_STRIP_BYTES = 1 << 20
_LARGEST = (1 << 32) - (1 << 24)


def check(data: bytes, name: str) -> bytes:
    """Refuse a file that Pillow would not open or would misread.

    Args:
      data: the file.
      name: the file's name in errors.

    Returns:
      The file for Pillow. A 16-bit file with white as zero is relabelled as black as zero, since
      Pillow leaves those values as they are, or refuses them.

    Raises:
      UserError: a kind of photo that is not understood; the message quotes the tags.
      OSError, SyntaxError, ValueError: the tags cannot be read.
    """
    tags = _tags(data)
    photometric = _first(tags.get(_PHOTOMETRIC, _WHITE_IS_ZERO))
    compression = _first(tags.get(_COMPRESSION, 1))
    bits = set(_several(tags.get(_BITS, 1)))
    forms = set(_several(tags.get(_FORMAT, 1)))
    kind, depths = _KINDS.get(photometric, (f"photometric interpretation {photometric}", ()))
    said = f"{'/'.join(map(str, sorted(bits)))} bits, {kind}"
    form = next((_FORMATS[f] for f in sorted(forms) if f in _FORMATS), None)
    planar = _first(tags.get(_PLANAR, 1)) == 2
    if form is not None:
        raise UserError(
            f"{name} holds {form} ({said}), whose range is unknown; save it as 8 or 16 bits"
        )
    understood = len(bits) == 1 and bits <= set(depths)
    # With separate channel planes Pillow reads one byte of each 16-bit sample.
    understood &= not (planar and bits == {16})
    # Without JPEG's own conversion, chroma would be read as colours.
    understood &= photometric != _YCBCR or compression in _JPEGS
    if not understood:
        apart = ", channels apart" if planar else ""
        raise UserError(
            f"{name} is a TIFF of a kind that is not understood ({said}{apart}); "
            "save it as RGB or grey of 8 or 16 bits"
        )
    if photometric == _WHITE_IS_ZERO and bits == {16}:
        return _renamed(data)
    return data


def is_inverted(data: bytes) -> bool:
    """Whether the file has 16-bit values that count from white."""
    tags = _tags(data)
    photometric = _first(tags.get(_PHOTOMETRIC, _WHITE_IS_ZERO))
    return photometric == _WHITE_IS_ZERO and _first(tags.get(_BITS, 1)) == 16


def _renamed(data: bytes) -> bytes:
    """Set the first directory's photometric interpretation to BlackIsZero."""
    order = "<" if data[:2] == b"II" else ">"
    if data[2:4] != struct.pack(order + "H", 42):
        raise ValueError("a large TIFF that counts from white")
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    changed = bytearray(data)
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        if struct.unpack_from(order + "H", data, entry)[0] == _PHOTOMETRIC:
            struct.pack_into(order + "HIHH", changed, entry + 2, 3, 1, _BLACK_IS_ZERO, 0)
            return bytes(changed)
    raise ValueError("no photometric interpretation")


def unknown(data: bytes, name: str) -> UserError:
    """Make the error for a file that passes `check` but that Pillow refuses."""
    tags = _tags(data)
    numbers = {
        "bits": _several(tags.get(_BITS, 1)),
        "photometric": tags.get(_PHOTOMETRIC),
        "extra samples": _several(tags.get(_EXTRA, ())),
        "fill order": tags.get(_FILL_ORDER, 1),
        "compression": tags.get(_COMPRESSION, 1),
    }
    said = ", ".join(f"{key} {value}" for key, value in numbers.items() if value not in (None, ()))
    return UserError(
        f"{name} is a TIFF of a kind that is not understood ({said}); "
        "save it as RGB or grey of 8 or 16 bits"
    )


def decode(
    image: Any, *, inverted: bool = False
) -> tuple[np.ndarray, np.ndarray | None, bool] | None:
    """Decode a TIFF of more than 8 bits per sample to (pixels, alpha, grey); None for others.

    Args:
      image: image that Pillow opened from a file object and has not loaded yet.
      inverted: whether grey counts from white.

    Returns:
      uint16, upright: pixels [H, W] if it is grey, else [H, W, 3]; alpha [H, W] or None.
    """
    tags = image.tag_v2
    bits, photometric = _first(tags.get(_BITS, 1)), _first(tags.get(_PHOTOMETRIC, 0))
    if bits not in (12, 16) or photometric == _CMYK:
        return None
    extra = _several(tags.get(_EXTRA, ()))
    if photometric == _RGB:
        again = Image.open(io.BytesIO(image.fp.getvalue()), formats=["TIFF"])
        high = _half(image, swapped=False).astype(np.uint16)
        values = high << 8 | _half(again, swapped=True)
        alpha = values[..., 3] if values.shape[2] == 4 else None
        pixels = values[..., :3]
        if alpha is not None and extra == (1,):
            pixels = _unmultiplied(pixels, alpha)
        return pixels, alpha, False
    image.load()
    values = np.asarray(image).astype(np.uint16)
    if bits == 12:
        values = (values.astype(np.uint32) * 65535 // 4095).astype(np.uint16)
    return (65535 - values if inverted else values), None, True


def _half(image: Any, *, swapped: bool) -> np.ndarray:
    """High bytes of the samples, or with `swapped` the low ones (the other byte order)."""
    tiles = []
    for tile in image.tile:
        args = list(tile.args)
        mode, order = args[0].replace("RGBa", "RGBA").split(";16")
        native = "L" if sys.byteorder == "little" else "B"
        order = native if order == "N" else order
        other = {"L": "B", "B": "L"}[order]
        args[0] = f"{mode};16{other if swapped else order}"
        tiles.append(tile._replace(args=tuple(args)))
    image.tile = tiles
    image.load()
    return np.asarray(image)


def _unmultiplied(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    whole = pixels.astype(np.float64) * 65535 / np.maximum(alpha, 1)[..., None]
    return np.rint(np.minimum(whole, 65535)).astype(np.uint16)


def colour_profile(image: Any) -> bytes | None:
    """Make a profile from WhitePoint and PrimaryChromaticities, or None."""
    white, corners = (image.tag_v2.get(tag) for tag in (_WHITE, _PRIMARIES))
    if white is None or corners is None:
        return None
    try:
        return from_gamma(None, [float(v) for v in (*white, *corners)])
    except (TypeError, ValueError, ZeroDivisionError):
        return None


def too_large(size: tuple[int, int], channels: int, bits: int) -> bool:
    """Whether a photo may not fit into a TIFF, whose limit is 4 GiB."""
    return size[0] * size[1] * channels * bits // 8 > _LARGEST


def encode(channels: np.ndarray, metadata: Metadata, icc_profile: bytes | None) -> bytes:
    """Encode a whole TIFF: deflated strips behind their tags.

    Args:
      channels: [H, W, C], uint8 or uint16; 1 to 4 channels are grey, grey and alpha, RGB, RGBA.
      metadata: metadata for the tags.
      icc_profile: profile of the channels' values.
    """
    if channels.dtype == np.uint16 and channels.shape[2] == 2:
        # Few programs read 16-bit grey with transparency.
        channels = channels[..., [0, 0, 0, 1]]
    height, width, count = channels.shape
    rows = max(1, _STRIP_BYTES // (width * count * channels.itemsize))
    strips = [_deflated(channels[top : top + rows]) for top in range(0, height, rows)]
    sizes = [len(strip) for strip in strips]
    tags = exif_for(metadata, (width, height))
    colours = 1 if count < 3 else 3
    tags[_WIDTH], tags[_LENGTH] = width, height
    tags[_BITS] = (8 * channels.itemsize,) * count
    tags[_COMPRESSION], tags[_PREDICTOR], tags[_PLANAR] = 8, 2, 1
    tags[_PHOTOMETRIC] = _BLACK_IS_ZERO if colours == 1 else _RGB
    tags[_SAMPLES], tags[_ROWS], tags[_SIZES] = count, rows, tuple(sizes)
    if count > colours:
        tags[_EXTRA] = 2
    if metadata.dpi is not None:
        tags[_ACROSS], tags[_DOWN], tags[_UNIT] = *metadata.dpi, 2
    for tag, content in ((_XMP, metadata.xmp), (_IPTC, metadata.iptc), (_ICC, icc_profile)):
        if content:
            tags[tag] = content
    # Offsets count from the end of the tags; Pillow adds its position.
    tags[_STRIPS] = tuple(int(value) for value in np.cumsum([0, *sizes[:-1]]))
    return tags.tobytes()[6:] + b"".join(strips)


def _deflated(rows: np.ndarray) -> bytes:
    differences = rows.astype(rows.dtype.newbyteorder("<"))
    differences[:, 1:] -= rows[:, :-1]
    return zlib.compress(differences.tobytes(), 6)


def _tags(data: bytes) -> Any:
    file = io.BytesIO(data)
    head = file.read(8)
    if head[2:3] == b"\x2b":
        head += file.read(8)
    tags = TiffImagePlugin.ImageFileDirectory_v2(head)
    file.seek(tags.next)
    tags.load(file)
    return tags


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) and value else value


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
