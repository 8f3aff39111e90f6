"""Writing PNG files: 16-bit pixels, which Pillow cannot write, and metadata chunks."""

import struct
import zlib

import numpy as np

from vosr_jax.files.metadata import Metadata

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_GREY, _RGB, _GREY_ALPHA, _RGBA = 0, 2, 4, 6
_ROWS_AT_ONCE = 256


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


def with_metadata(data: bytes, metadata: Metadata, exif: bytes, icc_profile: bytes | None) -> bytes:
    """Insert metadata chunks behind the header of a new PNG."""
    extra = []
    if icc_profile:
        extra.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc_profile)))
    if exif:
        extra.append((b"eXIf", exif))
    if metadata.dpi is not None:
        across, down = (round(value / 0.0254) for value in metadata.dpi)
        extra.append((b"pHYs", struct.pack(">IIB", across, down, 1)))
    if metadata.xmp is not None:
        extra.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp))
    if metadata.iptc is not None:
        text = f"\niptc\n{len(metadata.iptc):8}\n{metadata.iptc.hex()}\n"
        extra.append((b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(text.encode())))
    for key, text in metadata.texts:
        name = key.encode("latin-1", "replace")[:79]
        # Pillow refuses compressed texts beyond a megabyte, so these stay uncompressed.
        extra.append((b"iTXt", name + b"\0\0\0\0\0" + text.encode("utf-8", "replace")))
    end = len(SIGNATURE) + 25
    return data[:end] + b"".join(chunk(*pair) for pair in extra) + data[end:]


def chunk(name: bytes, content: bytes) -> bytes:
    """Make a chunk with its length and checksum."""
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum
