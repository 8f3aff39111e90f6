"""Parsing, decoding and encoding of PNG files: all 16 bits, exact transparency (ISO 15948).

Pillow decodes the pixels. It gets a file with pixels alone, because a damaged, large or unknown
text or profile must not make the photo fail. The other chunks are read separately. Pillow cannot
write 16-bit pixels, so these are encoded here.
"""

import dataclasses
import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from vosr_jax.files.photo import of_palette

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGBA = 0, 2, 3, 4, 6
_CHANNELS = {_GREY: 1, _RGB: 3, _PALETTE: 1, _GREY_ALPHA: 2, _RGBA: 4}
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_DEFLATES_BY = 1032  # deflate's largest compression ratio
_ROWS_AT_ONCE = 256


@dataclasses.dataclass(frozen=True)
class PngFile:
    """Chunks of a PNG.

    Attributes:
      size: (width, height).
      depth: bits per sample.
      kind: colour type from the header.
      interlaced: whether the pixels come in seven passes.
      chunks: {name: content}, the first chunk of each name, without IDAT and texts.
      texts: (chunk name, content), in order.
      data: contents of IDAT.
      animated: whether it has several frames.
    """

    size: tuple[int, int]
    depth: int
    kind: int
    interlaced: bool
    chunks: dict[bytes, bytes]
    texts: tuple[tuple[bytes, bytes], ...]
    data: tuple[bytes, ...]
    animated: bool

    @property
    def is_grey(self) -> bool:
        """Whether it is greyscale."""
        return self.kind in (_GREY, _GREY_ALPHA)


def parse(data: bytes) -> PngFile:
    """Split a PNG into its chunks.

    Raises:
      ValueError: no header, an unknown critical chunk, or a damaged one.
    """
    first: dict[bytes, bytes] = {}
    texts, pixels = [], []
    for name, content in _chunks(data):
        if name == b"IDAT":
            pixels.append(content)
        elif name in (b"tEXt", b"zTXt", b"iTXt"):
            texts.append((name, content))
        elif not name[0] & 32 and name not in _CRITICAL:
            raise ValueError(f"chunk {name.decode()} is not understood")
        else:
            first.setdefault(name, content)
    header = first.get(b"IHDR", b"")
    if len(header) != 13:
        raise ValueError("no header")
    width, height, depth, kind, packing, filtering, interlacing = struct.unpack(">IIBBBBB", header)
    if packing or filtering or interlacing > 1 or kind not in _CHANNELS or not width or not height:
        raise ValueError("the header is not understood")
    frames = struct.unpack(">I", first[b"acTL"][:4])[0] if len(first.get(b"acTL", b"")) == 8 else 1
    animated = frames > 1 and b"fdAT" in first
    return PngFile(
        (width, height),
        depth,
        kind,
        bool(interlacing),
        first,
        tuple(texts),
        tuple(pixels),
        animated,
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        content = data[at + 8 : at + 8 + length]
        whole = end <= len(data)
        sound = whole and zlib.crc32(name + content) == struct.unpack(">I", data[end - 4 : end])[0]
        if not sound and not name.isalpha():
            raise ValueError("a chunk without a name")
        if not sound and name in _CRITICAL:
            if whole:
                raise ValueError(f"the checksum of a chunk {name.decode()} is wrong")
            yield name, content  # truncated: the decoder reports it
            return
        if not sound and not data[end + 4 : end + 8].isalpha() and end != len(data):
            # Its length is wrong too: continue at the next chunk that the photo needs.
            places = [data.find(other, at + 8) for other in (b"PLTE", b"IDAT")]
            found = [place for place in places if place > 0]
            if not found:
                return
            at = min(found) - 4
            continue
        yield name, content
        if name == b"IEND":
            return
        at = end


def is_too_short(png: PngFile) -> bool:
    """Whether the data is too short to hold any pixels of the stated size."""
    width, height = png.size
    row = (width * png.depth * _CHANNELS[png.kind] + 7) // 8 + 1
    return row * height > _DEFLATES_BY * (sum(map(len, png.data)) + 64)


def decode(png: PngFile) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """Decode a PNG to (pixels, alpha, whether it is grey).

    Returns:
      Pixels [H, W, 3], or [H, W] if it is grey; alpha [H, W] or None. Both are uint8, or uint16
      if the file has 16 bits.

    Raises:
      OSError, SyntaxError, ValueError: truncated or damaged.
    """
    if png.depth == 16:
        values = _decode_16_bits(png)
    else:
        image = _opened(png)
        image.load()
        if png.kind == _PALETTE:
            return *of_palette(image), False
        if image.mode == "1":
            image = image.convert("L")
        values = np.asarray(image)
        values = values if values.ndim == 3 else values[..., None]
    grey = png.is_grey
    colours = 1 if grey else 3
    alpha = values[..., colours] if values.shape[2] > colours else _of_key(png, values)
    return (values[..., 0] if grey else values[..., :3]), alpha, grey


def _of_key(png: PngFile, values: np.ndarray) -> np.ndarray | None:
    """Alpha of a grey or colour file that declares one of its colours transparent."""
    key = png.chunks.get(b"tRNS", b"")
    count = values.shape[2]
    if png.kind not in (_GREY, _RGB) or len(key) != 2 * count:
        return None
    deepest = (1 << png.depth) - 1
    wanted = [value & deepest for value in struct.unpack(f">{count}H", key)]
    if png.depth < 8:
        wanted = [value * 255 // deepest for value in wanted]
    clear = (values == np.array(wanted, values.dtype)).all(-1)
    return np.where(clear, 0, np.iinfo(values.dtype).max).astype(values.dtype)


def _decode_16_bits(png: PngFile) -> np.ndarray:
    """Decode to [H, W, C] uint16; Pillow yields one byte of each sample at a time."""
    if png.kind == _GREY:
        image = _opened(png)
        image.load()
        return np.asarray(image).astype(np.uint16)[..., None]
    if png.kind == _GREY_ALPHA:
        halves = _half(png, "RGBA", "RGBA").astype(np.uint16)
        return halves[..., ::2] << 8 | halves[..., 1::2]
    mode = "RGB" if png.kind == _RGB else "RGBA"
    high, low = (_half(png, mode, f"{mode};16{order}") for order in "BL")
    return high.astype(np.uint16) << 8 | low


def _half(png: PngFile, mode: str, raw: str) -> np.ndarray:
    image = _opened(png)
    if not image.tile:
        raise OSError("no pixels")
    image._mode = mode
    tile = image.tile[0]
    image.tile = [tile._replace(args=raw)]
    image.load()
    return np.asarray(image)


def _opened(png: PngFile):
    """Open the pixels alone with Pillow."""
    wanted = [b"IHDR", b"PLTE"]
    if png.kind == _PALETTE:
        wanted.append(b"tRNS")
    parts = [chunk(name, png.chunks[name]) for name in wanted if name in png.chunks]
    parts += [chunk(b"IDAT", content) for content in png.data]
    return Image.open(
        io.BytesIO(SIGNATURE + b"".join(parts) + chunk(b"IEND", b"")), formats=["PNG"]
    )


def encode_16_bits(channels: np.ndarray) -> bytes:
    """Encode the pixels alone as a PNG.

    Args:
      channels: [H, W, C] uint16; 1 to 4 channels are grey, grey and alpha, RGB, RGBA.
    """
    height, width, count = channels.shape
    kind = (_GREY, _GREY_ALPHA, _RGB, _RGBA)[count - 1]
    packer, packed = zlib.compressobj(6), []
    above = np.zeros((1, width * count * 2), np.uint8)
    for top in range(0, height, _ROWS_AT_ONCE):
        rows = channels[top : top + _ROWS_AT_ONCE].astype(">u2").reshape(-1, width * count)
        raw = rows.view(np.uint8).reshape(len(rows), -1)
        filtered = _paeth(raw, np.concatenate([above, raw[:-1]]), 2 * count)
        lines = np.pad(filtered, ((0, 0), (1, 0)), constant_values=4)
        packed.append(packer.compress(lines.tobytes()))
        above = raw[-1:]
    packed.append(packer.flush())
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", b"".join(packed)) + chunk(b"IEND", b"")
    return SIGNATURE + parts


def _paeth(raw: np.ndarray, above: np.ndarray, back: int) -> np.ndarray:
    """Differences from the neighbour nearest to left + above - corner."""
    left, corner = (np.pad(rows, ((0, 0), (back, 0)))[:, :-back] for rows in (raw, above))
    a, b, c = (rows.astype(np.int16) for rows in (left, above, corner))
    to_left, to_above, to_corner = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    nearest = np.where(to_above <= to_corner, above, corner)
    nearest = np.where((to_left <= to_above) & (to_left <= to_corner), left, nearest)
    return raw - nearest


def chunk(name: bytes, content: bytes) -> bytes:
    """Make a chunk with its length and checksum."""
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum
