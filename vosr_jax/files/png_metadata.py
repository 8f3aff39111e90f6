"""A PNG's data beside its pixels: colours, EXIF, XMP, IPTC, resolution, texts.

Damaged data is left out when it is read.
"""

import struct
import zlib

from vosr_jax.errors import UserError
from vosr_jax.files.colour_profiles import from_code_points, from_gamma
from vosr_jax.files.metadata import Metadata, of_parts
from vosr_jax.files.png import SIGNATURE, PngFile, chunk

_LONGEST_TEXT = 1 << 24
_LONGEST_PROFILE = 1 << 26


def colour_profile(png: PngFile, name: str) -> bytes | None:
    """Return the embedded profile, or one made from cICP or from gAMA and cHRM.

    Raises:
      UserError: colours that are not understood.
    """
    chunks, grey = png.chunks, png.is_grey
    points = chunks.get(b"cICP", b"")
    if len(points) == 4:
        if points[2] or not points[3]:
            raise UserError(f"{name} holds video levels, not RGB; convert it to sRGB")
        return from_code_points(points[0], points[1], name, grey=grey)
    packed = chunks.get(b"iCCP", b"").partition(b"\0")[2]
    profile = _inflated(packed[1:], _LONGEST_PROFILE) if packed[:1] == b"\0" else None
    if profile:
        return profile
    if b"sRGB" in chunks:
        return None
    gamma, corners = chunks.get(b"gAMA", b""), chunks.get(b"cHRM", b"")
    return from_gamma(
        struct.unpack(">I", gamma)[0] / 1e5 if len(gamma) == 4 else None,
        [v / 1e5 for v in struct.unpack(">8I", corners)] if len(corners) == 32 else None,
        grey=grey,
    )


def metadata(png: PngFile) -> tuple[Metadata, int]:
    """Return the metadata in the chunks, and the orientation."""
    texts: list[tuple[str, str]] = []
    raw: dict[str, bytes] = {}
    for name, content in png.texts:
        key, text = _text(name, content)
        if key == "XML:com.adobe.xmp":
            raw["xmp"] = text.encode()
        elif key.startswith("Raw profile type "):
            raw[key[17:]] = _of_hex(text)
        elif key and text:
            texts.append((key, text))
    exif = png.chunks.get(b"eXIf") or raw.get("exif") or raw.get("APP1")
    if exif is not None and not exif.startswith((b"Exif\0\0", b"II", b"MM")):
        exif = None
    dpi = None
    physical = png.chunks.get(b"pHYs", b"")
    if len(physical) == 9 and physical[8] == 1:
        dpi = tuple(value * 0.0254 for value in struct.unpack(">II", physical[:8]))
    iptc = _iptc_of(raw.get("iptc", b""))
    return of_parts(exif, raw.get("xmp"), iptc, dpi, tuple(texts))


def _text(name: bytes, content: bytes) -> tuple[str, str]:
    key, _, rest = content.partition(b"\0")
    if name == b"tEXt":
        return key.decode("latin-1"), rest.decode("latin-1")
    if name == b"zTXt":
        return key.decode("latin-1"), (_inflated(rest[1:], _LONGEST_TEXT) or b"").decode("latin-1")
    packed, _, rest = rest[:1], rest[1:2], rest[2:]
    text = rest.partition(b"\0")[2].partition(b"\0")[2]
    if packed == b"\1":
        text = _inflated(text, _LONGEST_TEXT) or b""
    return key.decode("latin-1"), text.decode("utf-8", "replace")


def _inflated(data: bytes, longest: int) -> bytes | None:
    """Decompress; None if the data is damaged or its content longer than `longest`."""
    reader = zlib.decompressobj()
    try:
        content = reader.decompress(data, longest)
    except zlib.error:
        return None
    return content if reader.eof else None


def _of_hex(text: str) -> bytes:
    """Decode ImageMagick's raw profile: a name, a length and hexadecimal digits."""
    lines = text.strip().split("\n")
    try:
        return bytes.fromhex("".join(lines[2:]))
    except ValueError:
        return b""


def _iptc_of(block: bytes) -> bytes | None:
    """Extract IPTC records, plain or inside Photoshop's resources."""
    if not block.startswith(b"8BIM"):
        return block or None
    at = 0
    while block[at : at + 4] == b"8BIM" and at + 12 <= len(block):
        kind, name = struct.unpack_from(">HB", block, at + 4)
        start = at + 6 + (name + 2) // 2 * 2
        if start + 4 > len(block):
            return None
        (length,) = struct.unpack_from(">I", block, start)
        if kind == 0x0404:
            return block[start + 4 : start + 4 + length]
        at = start + 4 + (length + 1) // 2 * 2
    return None


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
