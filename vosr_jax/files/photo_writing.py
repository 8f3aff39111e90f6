"""Writing photo files atomically, with profile and metadata, in 16 bits if the format can."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from vosr_jax.errors import UserError
from vosr_jax.files import atomic, png, png_metadata, tiff
from vosr_jax.files.metadata import Metadata, exif_for
from vosr_jax.files.photo import Photo, eight_bits, of_pillow, to_srgb

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"}
_FORMATS |= {".tif": "TIFF", ".tiff": "TIFF"}
_DEEP = ("PNG", "TIFF")
_WITHOUT_ALPHA = ("JPEG", "BMP")
_LONGEST_SIDE = {"JPEG": 65535, "WEBP": 16383}
_QUALITY = 95
_LONGEST_SEGMENT = 65533
_XMP_PREFIX = 29


def check_target(
    path: Path, transparent: bool = False, size: tuple[int, int] | None = None, bits: int = 8
) -> str:
    """Return Pillow's name of an output file's format, if the format can hold the photo.

    Args:
      path: the file.
      transparent: whether the photo has transparency.
      size: (width, height), if known.
      bits: bits per sample of the photo.

    Raises:
      UserError: the suffix is not one of SUFFIXES, or its format cannot hold such a photo.
    """
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        known = ", ".join(SUFFIXES)
        raise UserError(f"{path}: cannot write '{path.suffix}' files; choose one of {known}")
    if transparent and kind in _WITHOUT_ALPHA:
        raise UserError(f"{path}: {kind} holds no transparency; write a PNG instead")
    longest = _LONGEST_SIDE.get(kind)
    if size is not None and longest is not None and max(size) > longest:
        raise UserError(
            f"{path}: {kind} holds no more than {longest} pixels on a side, not "
            f"{size[0]}x{size[1]}; write a PNG instead"
        )
    if size is not None and kind == "TIFF" and tiff.too_large(size, 3 + transparent, bits):
        raise UserError(f"{path}: TIFF holds no more than 4 GB; write a PNG instead")
    return kind


def bits_of(path: Path) -> int:
    """The most bits per sample that the format of a file name can hold."""
    return 16 if _FORMATS.get(path.suffix.lower()) in _DEEP else 8


def write_photo(photo: Photo | Image.Image, path: str | os.PathLike) -> None:
    """Write a photo in the format that the suffix names; missing folders are created.

    PNG and TIFF hold 16 bits; other formats get 8. Metadata that a format cannot hold is left out:
    IPTC and texts in WebP, texts in JPEG and TIFF, JPEG segments beyond 64 KB.

    Raises:
      UserError: an unknown suffix, a photo that the format cannot hold, or a folder or disk that
        cannot be written.
    """
    if isinstance(photo, Image.Image):
        photo = of_pillow(photo)
    path = Path(path)
    atomic.write_bytes(path, encode(photo, path))


def encode(photo: Photo, path: Path) -> bytes:
    """Encode a photo in the format of a file name.

    Raises:
      UserError: as `check_target`.
    """
    kind = check_target(path, photo.alpha is not None, photo.size, photo.bits)
    deep = photo.bits == 16 and kind in _DEEP
    exif = exif_for(photo.metadata, photo.size)
    blob = exif.tobytes()[6:] if len(exif) else b""
    if kind == "TIFF":
        return tiff.encode(_channels(photo, deep), photo.metadata, photo.icc_profile)
    if kind == "PNG":
        pixels = png.encode_16_bits(_channels(photo, True)) if deep else _by_pillow(photo, "PNG")
        return png_metadata.with_metadata(pixels, photo.metadata, blob, photo.icc_profile)
    profile = photo.icc_profile
    options: dict = {"quality": _QUALITY, "exif": blob, "icc_profile": profile}
    if kind == "JPEG":
        options |= _jpeg_options(photo.metadata, blob)
    elif kind == "WEBP":
        photo, options["icc_profile"] = _in_rgb(photo)
        options["xmp"] = photo.metadata.xmp or b""
    else:
        options = {}
    return _by_pillow(photo, kind, **options)


def _channels(photo: Photo, deep: bool) -> np.ndarray:
    """[H, W, C] array of 1 to 4 channels."""
    pixels, alpha = photo.pixels, photo.alpha
    pixels = pixels[..., :1] if photo.grey else pixels
    if alpha is not None:
        pixels = np.concatenate([pixels, alpha[..., None]], axis=-1)
    return pixels if deep else eight_bits(pixels)


def _by_pillow(photo: Photo, kind: str, **options) -> bytes:
    channels = _channels(photo, False)
    image = Image.fromarray(channels[..., 0] if channels.shape[2] == 1 else channels)
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def _jpeg_options(metadata: Metadata, exif: bytes) -> dict:
    options: dict = {"subsampling": 0}
    if metadata.dpi is not None:
        options["dpi"] = tuple(round(value) for value in metadata.dpi)
    options["exif"] = b"Exif\0\0" + exif if exif else b""
    if len(options["exif"]) > _LONGEST_SEGMENT:
        options["exif"] = b""
    if metadata.xmp is not None and len(metadata.xmp) + _XMP_PREFIX <= _LONGEST_SEGMENT:
        options["xmp"] = metadata.xmp
    if metadata.iptc is not None:
        records = metadata.iptc + bytes(len(metadata.iptc) % 2)
        block = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0"
        block += len(metadata.iptc).to_bytes(4, "big") + records
        if len(block) <= _LONGEST_SEGMENT:
            options["extra"] = b"\xff\xed" + (len(block) + 2).to_bytes(2, "big") + block
    comment = dict(metadata.texts).get("Comment")
    if comment and len(comment.encode()) <= _LONGEST_SEGMENT:
        options["comment"] = comment.encode()
    return options


def _in_rgb(photo: Photo) -> tuple[Photo, bytes | None]:
    """Values and profile in RGB, for a format without grey."""
    profile = photo.icc_profile
    if profile is None or profile[16:20] != b"GRAY":
        return photo, profile
    grey = Image.fromarray(eight_bits(photo.pixels)[..., 0])
    converted = to_srgb(grey, profile)
    if converted is None:
        return photo, None
    alpha = None if photo.alpha is None else eight_bits(photo.alpha)
    return Photo(np.asarray(converted), alpha, False, None, photo.metadata), None
