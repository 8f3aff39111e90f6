"""ICC profiles from the primaries and curves that PNG, AVIF and TIFF state (ICC.1:2010).

Every output format can carry such a profile and every program understands it. Few programs
understand chunks like gAMA, cHRM and cICP.
"""

import struct
from collections.abc import Sequence

import numpy as np

from vosr_jax.errors import UserError

# x and y of white, red, green and blue.
SRGB_PRIMARIES = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_ADOBE_RGB = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
# By the code points of ITU-T H.273, as cICP and nclx use them; 2 means unspecified.
_PRIMARIES: dict[int, tuple[float, ...]] = {
    1: SRGB_PRIMARIES,
    2: SRGB_PRIMARIES,
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (0.3127, 0.3290, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (0.3127, 0.3290, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    7: (0.3127, 0.3290, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    12: (0.3127, 0.3290, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
}
# Parameters of ICC's parametric curve: gamma alone, or with a, b, c, d.
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_VIDEO_CURVE = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
_CURVES: dict[int, tuple[float, ...]] = {
    **dict.fromkeys((1, 6, 14, 15), _VIDEO_CURVE),
    **dict.fromkeys((2, 13), _SRGB_CURVE),
    4: (2.2,),
    5: (2.8,),
    8: (1.0,),
}
_HDR = {16: "PQ", 18: "HLG"}
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def from_gamma(
    gamma: float | None, primaries: Sequence[float] | None, *, grey: bool = False
) -> bytes | None:
    """Make a profile for a PNG's gAMA and cHRM.

    Args:
      gamma: exponent by which light was encoded, usually 0.45455; None if not stated.
      primaries: x and y of white, red, green and blue, or None.
      grey: whether the photo is greyscale.

    Returns:
      The profile; None if it is (nearly) sRGB, or if the numbers make no sense.
    """
    usual = gamma is None or abs(gamma - 0.45455) < 0.002
    primaries = tuple(primaries) if primaries and not grey else SRGB_PRIMARIES
    alike = len(primaries) == 8 and np.allclose(primaries, SRGB_PRIMARIES, atol=0.002)
    if (usual and alike) or not (gamma is None or 0.05 < gamma < 20):
        return None
    curve = _SRGB_CURVE if gamma is None or usual else (1 / gamma,)
    return make_profile(primaries, curve, grey=grey)


def from_code_points(
    primaries: int, transfer: int, name: str = "the picture", *, grey: bool = False
) -> bytes | None:
    """Make a profile for code points of ITU-T H.273; None if they mean sRGB.

    Raises:
      UserError: high dynamic range, or code points that are not understood.
    """
    if transfer in _HDR:
        raise UserError(
            f"{name} is in high dynamic range ({_HDR[transfer]}), which is not understood; "
            "convert it to sRGB or Display P3"
        )
    if primaries not in _PRIMARIES or transfer not in _CURVES:
        raise UserError(
            f"{name} has colours that are not understood (primaries {primaries}, transfer "
            f"{transfer}); convert it to sRGB"
        )
    # Browsers and viewers show photos marked as BT.709 as sRGB.
    if primaries in (1, 2) and transfer in (1, 2, 6, 13, 14, 15):
        return None
    return make_profile(_PRIMARIES[primaries], _CURVES[transfer], grey=grey)


def adobe_rgb() -> bytes:
    """Make the profile for cameras that mark Adobe RGB in EXIF but embed no profile."""
    profile = make_profile(_ADOBE_RGB, (563 / 256,))
    assert profile is not None
    return profile


def make_profile(
    primaries: Sequence[float], curve: tuple[float, ...], *, grey: bool = False
) -> bytes | None:
    """Make an ICC profile of version 4.2; None if the primaries span no colour space.

    Args:
      primaries: x and y of white, red, green and blue.
      curve: the parametric curve's gamma, or gamma, a, b, c, d.
      grey: whether it is for a single channel.
    """
    matrix = _to_d50(primaries)
    if matrix is None:
        return None
    white = _xyz(primaries[0], primaries[1])
    adaptation = _adaptation(white)
    kind = 0 if len(curve) == 1 else 3
    tone = b"para" + bytes(4) + struct.pack(">HH", kind, 0) + _fixed(*curve)
    tags = {b"wtpt": _point(_D50), b"chad": b"sf32" + bytes(4) + _fixed(*adaptation.ravel())}
    if grey:
        tags[b"kTRC"] = tone
    else:
        for name, column in zip((b"r", b"g", b"b"), matrix.T, strict=True):
            tags[name + b"XYZ"] = _point(column)
            tags[name + b"TRC"] = tone
    return _profile(b"GRAY" if grey else b"RGB ", tags)


def _to_d50(primaries: Sequence[float]) -> np.ndarray | None:
    """[3, 3] matrix from linear RGB to XYZ under D50; None if the primaries are invalid."""
    if len(primaries) != 8 or not all(0 <= v <= 1 for v in primaries) or primaries[1] < 0.01:
        return None
    white, *corners = (
        np.array([x, y, 1 - x - y]) for x, y in zip(primaries[::2], primaries[1::2], strict=True)
    )
    columns = np.stack(corners, axis=1)
    if abs(np.linalg.det(columns)) < 1e-4:
        return None
    luminances = np.linalg.solve(columns, white / white[1])
    matrix = _adaptation(white / white[1]) @ (columns * luminances)
    return matrix if np.abs(matrix).max() < 4 and luminances.min() > 0 else None


def _xyz(x: float, y: float) -> np.ndarray:
    return np.array([x, y, 1 - x - y]) / y


def _adaptation(white: np.ndarray) -> np.ndarray:
    """Bradford adaptation matrix from a white point to D50."""
    scales = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    return np.linalg.inv(_BRADFORD) @ (scales[:, None] * _BRADFORD)


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)


def _point(xyz: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(*xyz)


def _text(text: str) -> bytes:
    content = text.encode("utf-16-be")
    return (
        b"mluc"
        + bytes(4)
        + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(content), 28)
        + (content)
    )


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {b"desc": _text("as the source file states"), b"cprt": _text("no copyright")} | tags
    start = 128 + 4 + 12 * len(tags)
    table, data = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    header = struct.pack(">I", start + len(data)) + bytes(4) + struct.pack(">I", 0x04200000)
    header += b"mntr" + space + b"XYZ " + struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp"
    header += bytes(28) + _fixed(*_D50)
    return header.ljust(128, b"\0") + table + data
