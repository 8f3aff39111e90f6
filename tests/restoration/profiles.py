"""Small ICC profiles for the tests, made by hand (ICC.1:2001-04)."""

import struct


def display_p3_profile() -> bytes:
    """Display P3's primaries with a gamma of 2.2."""
    columns = {
        b"rXYZ": (0.5151, 0.2412, -0.0011),
        b"gXYZ": (0.2920, 0.6922, 0.0419),
        b"bXYZ": (0.1571, 0.0666, 0.7841),
        b"wtpt": (0.9642, 1.0, 0.8249),
    }
    tags = {name: b"XYZ " + bytes(4) + _fixed(*values) for name, values in columns.items()}
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(2.2 * 256)) + bytes(2)
    tags |= {name: curve for name in (b"rTRC", b"gTRC", b"bTRC")}
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def cmyk_profile(cyan: tuple[float, float, float]) -> bytes:
    """A printer whose cyan ink looks like this Lab colour, beside black and two invisible inks."""
    ramp = bytes(range(256))
    white, ink, black = _lab8(100, 0, 0), _lab8(*cyan), _lab8(0, 0, 0)
    # Two points on each axis, cyan's the slowest and black's the fastest.
    grid = (white + black) * 4 + (ink + black) * 4
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table += ramp * 4 + grid + ramp * 3
    tags = {b"A2B0": table, b"wtpt": b"XYZ " + bytes(4) + _fixed(0.9642, 1.0, 0.8249)}
    return _profile(b"prtr", b"CMYK", b"Lab ", tags)


def _lab8(lightness: float, a: float, b: float) -> bytes:
    return bytes((round(lightness * 2.55), round(a) + 128, round(b) + 128))


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    text = b"test\0"
    tags = tags | {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78),
        b"cprt": b"text" + bytes(4) + text,
    }
    table, data = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    header = struct.pack(">I", start + len(data)) + bytes(4) + struct.pack(">I", 0x02400000)
    header += kind + space + connection + bytes(12) + b"acsp" + bytes(28)
    header += _fixed(0.9642, 1.0, 0.8249)
    return header.ljust(128, b"\0") + table + data
