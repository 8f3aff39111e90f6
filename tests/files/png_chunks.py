"""PNG files made by hand, chunk by chunk."""

import struct
import zlib

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(name: bytes, content: bytes, *, sound: bool = True) -> bytes:
    """One chunk, with a wrong checksum if it is not to be sound."""
    checksum = zlib.crc32(name + content) ^ (not sound)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def header(width: int, height: int, depth: int, kind: int) -> bytes:
    """IHDR."""
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))


def make_png(values: np.ndarray, depth: int, kind: int, *extra: bytes) -> bytes:
    """A PNG of [H, W, C] values of `depth` bits, with chunks between header and pixels."""
    height, width, count = values.shape
    if depth == 16:
        rows = values.astype(">u2").reshape(height, -1).view(np.uint8)
    else:
        bits = np.unpackbits(values.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
        rows = np.packbits(bits.reshape(height, -1), axis=1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    parts = [header(width, height, depth, kind), *extra, chunk(b"IDAT", zlib.compress(raw))]
    return SIGNATURE + b"".join(parts) + chunk(b"IEND", b"")
