"""Metadata of a photo beside pixels and colours: EXIF, XMP, IPTC, resolution, texts.

Orientation is read and reset here, since photos are turned upright. Thumbnails and tags that
describe the old file's bytes are dropped. Nothing here makes a photo fail: metadata that cannot be
read is left out.
"""

import dataclasses
import re
import warnings
from typing import Any

from PIL import Image

_ORIENTATION, _EXIF_IFD, _GPS_IFD, _INTEROP_IFD = 0x0112, 0x8769, 0x8825, 0xA005
_PIXEL_WIDTH, _PIXEL_HEIGHT, _INTEROP_INDEX = 0xA002, 0xA003, 1
_IPTC_TAG, _XMP_TAG, _PHOTOSHOP_TAG = 33723, 700, 34377
_PHOTOSHOP_IPTC = 0x0404

# Tags of the first directory that are dropped. They describe the old file's layout, metadata kept
# elsewhere (XMP, IPTC, ICC), or places on the ground (GeoTIFF), whose pixels have moved.
_OF_THE_FILE = {
    *(254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281, 284),
    *(288, 289, 290, 291, 292, 293, 297, 301, 317, 318, 319, 320, 321, 322, 323, 324, 325, 326),
    *(327, 328, 330, 332, 333, 334, 336, 337, 338, 339, 340, 341, 342, 343, 344, 345, 346, 347),
    *range(512, 522),
    *(529, 530, 531, 532, 559, _XMP_TAG, _IPTC_TAG, _PHOTOSHOP_TAG, 34675, 37724),
    *(33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113),
}
# DNG's own tags start here; with them programs would take the result for a raw file.
_FIRST_OF_DNG = 50700


@dataclasses.dataclass(frozen=True)
class Metadata:
    """Metadata that is kept from a file.

    Attributes:
      exif: a TIFF structure, without JPEG's prefix.
      xmp: an XMP packet.
      iptc: IPTC-IIM records.
      dpi: pixels per inch, horizontal and vertical.
      texts: (keyword, text) from a PNG's text chunks and from comments.
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    dpi: tuple[float, float] | None = None
    texts: tuple[tuple[str, str], ...] = ()


def of_parts(
    exif: bytes | Image.Exif | None = None,
    xmp: Any = None,
    iptc: bytes | None = None,
    dpi: Any = None,
    texts: tuple[tuple[str, str], ...] = (),
) -> tuple[Metadata, int]:
    """Return the metadata and the orientation that they state, 1 to 8."""
    cleaned, orientation = _clean_exif(exif)
    xmp = xmp.encode() if isinstance(xmp, str) else xmp
    xmp = xmp if isinstance(xmp, bytes) and xmp.strip(b"\0 \n") else None
    if xmp is not None:
        xmp, of_xmp = _clean_xmp(xmp)
        orientation = orientation or of_xmp
    return Metadata(cleaned, xmp, iptc or None, _resolution(dpi), texts), orientation or 1


def of_image(image: Image.Image) -> tuple[Metadata, int]:
    """Return metadata and orientation of an image that Pillow has opened and loaded."""
    info, tags = image.info, getattr(image, "tag_v2", None)
    exif: bytes | Image.Exif | None = info.get("exif")
    iptc = None
    if tags is not None:
        exif, iptc = image.getexif(), _bytes(tags.get(_IPTC_TAG))
    elif isinstance(info.get("photoshop"), dict):
        iptc = _bytes(info["photoshop"].get(_PHOTOSHOP_IPTC))
    comment = info.get("comment")
    if isinstance(comment, bytes):
        comment = comment.decode("utf-8", "replace")
    comment = comment.strip("\0") if isinstance(comment, str) else None
    texts = (("Comment", comment),) if comment else ()
    return of_parts(exif, info.get("xmp"), iptc, info.get("dpi"), texts)


def exif_for(metadata: Metadata, size: tuple[int, int]) -> Image.Exif:
    """Make the EXIF for a result of (width, height); empty if there is none."""
    exif = Image.Exif()
    exif.endian = "<"
    if metadata.exif is None:
        return exif
    read = _loaded(metadata.exif)
    for tag, value in _directories(read).items():
        exif[tag] = value
    details = exif.get(_EXIF_IFD)
    if isinstance(details, dict):
        for tag, side in zip((_PIXEL_WIDTH, _PIXEL_HEIGHT), size, strict=True):
            if tag in details:
                details[tag] = side
    return exif


def is_adobe_rgb(metadata: Metadata) -> bool:
    """Whether EXIF marks the colours as Adobe RGB, as cameras do instead of a profile."""
    if metadata.exif is None:
        return False
    try:
        details = _directories(_loaded(metadata.exif)).get(_EXIF_IFD, {})
        index = details.get(_INTEROP_IFD, {}).get(_INTEROP_INDEX, "")
    except Exception:
        return False
    text = index.decode("latin-1") if isinstance(index, bytes) else str(index)
    return text.startswith("R03")


def _loaded(data: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(data)
    return exif


def _clean_exif(exif: bytes | Image.Exif | None) -> tuple[bytes | None, int | None]:
    """(EXIF without the tags that belong to the old file, orientation)."""
    if exif is None:
        return None, None
    orientation = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read = _loaded(exif) if isinstance(exif, bytes) else exif
            found = read.get(_ORIENTATION)
            orientation = found if isinstance(found, int) and 1 <= found <= 8 else None
            kept = Image.Exif()
            kept.endian = "<"
            for tag, value in _directories(read).items():
                kept[tag] = 1 if tag == _ORIENTATION else value
            blob = kept.tobytes()[6:] if len(kept) else None
            # Check that the result is readable, or programs would drop all of it.
            if blob is not None:
                _directories(_loaded(blob))
            return blob, orientation
    except Exception:  # Pillow raises errors of many kinds on damaged structures
        return None, orientation


def _directories(exif: Image.Exif) -> dict[int, Any]:
    """{tag: value} without tags of the old file; nested directories as dicts, no thumbnail."""
    kept = {
        tag: exif[tag]
        for tag in sorted(exif)
        if tag not in _OF_THE_FILE and tag < _FIRST_OF_DNG and tag not in (_EXIF_IFD, _GPS_IFD)
    }
    for tag in (_EXIF_IFD, _GPS_IFD):
        inner = dict(exif.get_ifd(tag)) if tag in exif else {}
        if tag == _EXIF_IFD and _INTEROP_IFD in inner:
            inner[_INTEROP_IFD] = dict(exif.get_ifd(_INTEROP_IFD))
            if not inner[_INTEROP_IFD]:
                del inner[_INTEROP_IFD]
        if inner:
            kept[tag] = inner
    return kept


def _clean_xmp(xmp: bytes) -> tuple[bytes, int | None]:
    orientation = None
    found = re.search(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])", xmp)
    if found is not None:
        orientation = int(found[1])
        xmp = xmp[: found.start(1)] + b"1" + xmp[found.end(1) :]
    for name in (rb"xmp:Thumbnails", rb"xap:Thumbnails"):
        xmp = re.sub(rb"<" + name + rb"\b.*?</" + name + rb">", b"", xmp, flags=re.DOTALL)
    return xmp, orientation


def _resolution(dpi: Any) -> tuple[float, float] | None:
    try:
        across, down = (float(value) for value in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 1 < across < 1e5 and 1 < down < 1e5 else None


def _bytes(value: Any) -> bytes | None:
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, tuple) and all(isinstance(part, int) for part in value):
        # Old programs write IPTC as 32-bit numbers.
        return b"".join(part.to_bytes(4, "little") for part in value if 0 <= part < 1 << 32)
    return value if isinstance(value, bytes) and value else None
