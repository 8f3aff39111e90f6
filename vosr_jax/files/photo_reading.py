"""Reading photo files: formats that Pillow reads, and HEIC through an optional package.

Every failure names the file. Pillow always gets an open file, never a name: it maps named,
uncompressed TIFFs into memory with the size after their orientation.
"""

import contextlib
import io
import os
import re
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from vosr_jax.errors import UserError
from vosr_jax.files import png, png_metadata, tiff
from vosr_jax.files.colour_profiles import from_code_points
from vosr_jax.files.metadata import of_image
from vosr_jax.files.photo import Photo, assemble, of_modes

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".avif", ".heic", ".heif"),
    *(".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2"),
)
MAX_MEGAPIXELS = 100.0

_FORMATS = ["JPEG", "MPO", "WEBP", "AVIF", "HEIF", "TIFF", "BMP", "DIB", "GIF", "PPM", "TGA"]
_FORMATS += ["JPEG2000"]
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
_DAMAGES = (
    *(OSError, SyntaxError, ValueError, EOFError, KeyError, TypeError, IndexError),
    *(OverflowError, ZeroDivisionError, RuntimeError, AttributeError),
)
_pillows_limit = threading.Lock()


def read_photo(
    source: str | os.PathLike | bytes,
    max_megapixels: float = MAX_MEGAPIXELS,
    name: str | None = None,
) -> Photo:
    """Read one still photo.

    Args:
      source: a file's path, or its bytes.
      max_megapixels: a larger photo is refused by its header, before decoding.
      name: the photo's name in errors; the path if not given.

    Raises:
      UserError: no such file, not a photo, a truncated, animated or multi-page one, one that is
        too large, or one of a kind that is not understood.
    """
    name = name or _name(source)
    data = read_bytes(source)
    with _explained(name):
        if data.startswith(png.SIGNATURE):
            return _read_png(data, max_megapixels, name)
        with _opened(data, max_megapixels, name) as image:
            return _read_other(image, data, name)


def photo_size(
    source: str | os.PathLike | bytes, max_megapixels: float = MAX_MEGAPIXELS
) -> tuple[int, int]:
    """Read (width, height) from the header, before EXIF's orientation is applied.

    Raises:
      UserError: as `read_photo`, as far as the header shows it.
    """
    name, data = _name(source), read_bytes(source)
    with _explained(name):
        if data.startswith(png.SIGNATURE):
            return _parsed_png(data, max_megapixels, name).size
        with _opened(data, max_megapixels, name) as image:
            return image.size


def read_bytes(source: str | os.PathLike | bytes) -> bytes:
    """Read a photo file's bytes.

    Raises:
      UserError: no such file, a folder, or an empty file.
    """
    name = _name(source)
    if isinstance(source, bytes):
        data = source
    else:
        path = Path(source)
        try:
            if path.is_dir():
                raise UserError(f"{name} is a folder; give a picture")
            if path.exists() and not path.is_file():
                raise UserError(f"{name} is no ordinary file; give a picture")
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise UserError(f"{name} does not exist; check the path") from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(f"{name} cannot be read ({reason}); check the path") from error
    if not data:
        raise UserError(f"{name} is empty (0 bytes); give a picture")
    return data


def _name(source: str | os.PathLike | bytes) -> str:
    return "the picture" if isinstance(source, bytes) else str(source)


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn errors of decoders on damaged files into one sentence."""
    try:
        with warnings.catch_warnings():
            # Pillow warns about damaged metadata, which must not make the photo fail.
            warnings.simplefilter("ignore")
            yield
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(f"{name} is no picture that can be read; give a PNG or JPEG") from error
    except MemoryError as error:
        raise UserError(f"{name} needs more memory than there is; cut it") from error
    except _DAMAGES as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{name} is damaged or unreadable ({reason}); replace it") from error


def _parsed_png(data: bytes, max_megapixels: float, name: str) -> png.PngFile:
    parsed = png.parse(data)
    refuse_large(parsed.size, name, max_megapixels)
    if parsed.animated:
        raise UserError(_several_frames(name))
    if png.is_too_short(parsed):
        raise OSError("image file is truncated")
    return parsed


def _read_png(data: bytes, max_megapixels: float, name: str) -> Photo:
    parsed = _parsed_png(data, max_megapixels, name)
    profile = png_metadata.colour_profile(parsed, name)
    with _without_pillows_limit():
        pixels, alpha, grey = png.decode(parsed)
    return assemble(pixels, alpha, grey, profile, *png_metadata.metadata(parsed))


def _read_other(image: Image.Image, data: bytes, name: str) -> Photo:
    deep = None
    if image.format == "TIFF":
        deep = tiff.decode(image, inverted=tiff.is_inverted(data))
    image.load()
    metadata, orientation = of_image(image)
    if image.format == "TIFF":
        orientation = 1  # Pillow has already turned it
    if deep is not None:
        pixels, alpha, grey = deep
        profile = image.info.get("icc_profile")
    else:
        pixels, alpha, grey, profile = of_modes(image, name)
    if profile is None and image.mode != "CMYK":
        profile = _stated_profile(image, data, name, grey)
    return assemble(pixels, alpha, grey, profile, metadata, orientation)


def _stated_profile(image: Image.Image, data: bytes, name: str, grey: bool) -> bytes | None:
    """Make a profile for a file that states its colours as numbers instead."""
    if image.format == "TIFF":
        return None if grey else tiff.colour_profile(image)
    if image.format not in ("AVIF", "HEIF"):
        return None
    found = re.search(rb"colrnclx(..)(..)", data[: 1 << 16], re.DOTALL)
    if found is None:
        return None
    primaries, transfer = (int.from_bytes(code, "big") for code in found.groups())
    return from_code_points(primaries, transfer, name, grey=grey)


@contextlib.contextmanager
def _opened(data: bytes, max_megapixels: float, name: str) -> Iterator[Image.Image]:
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS and b"avif" not in data[8:40]:
        _register_heic(name)
    is_tiff = data.startswith(tuple(tiff.TiffImagePlugin.PREFIXES))
    original = data
    if is_tiff:
        data = tiff.check(data, name)
    with _without_pillows_limit():
        try:
            image = Image.open(io.BytesIO(data), formats=known_formats())
        except UnidentifiedImageError:
            if is_tiff:
                raise tiff.unknown(original, name) from None
            raise
        with image:
            refuse_large(image.size, name, max_megapixels)
            # A phone's MPO file is one photo; its further frames are previews and depth.
            if image.format != "MPO" and getattr(image, "is_animated", False):
                raise UserError(_several_frames(name))
            if image.format in ("JPEG", "MPO") and _too_short_a_jpeg(image.size, data):
                raise OSError("image file is truncated")
            yield image


def known_formats() -> list[str]:
    """Pillow's names of the formats that are read and that its installation supports."""
    Image.init()
    return [kind for kind in ("PNG", *_FORMATS) if kind in Image.OPEN]


def _register_heic(name: str) -> None:
    try:
        # An optional package.
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise UserError(
            f"{name} is HEIC, which needs another package: pip install 'vosr_jax[heic]'"
        ) from error
    register_heif_opener()


@contextlib.contextmanager
def _without_pillows_limit() -> Iterator[None]:
    """Lift Pillow's own pixel limit, which is global to the process, inside the block."""
    with _pillows_limit:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def refuse_large(size: tuple[int, int], name: str, max_megapixels: float) -> None:
    """Raise UserError if width times height exceeds the limit."""
    width, height = size
    if width * height > max_megapixels * 1e6:
        raise UserError(
            f"{name} is {width}x{height}, more than {max_megapixels:g} megapixels; cut it, or "
            "raise the limit with --max-megapixels if you trust it and have the memory"
        )


def _several_frames(name: str) -> str:
    return f"{name} is animated or has several pages; give a still picture"


def _too_short_a_jpeg(size: tuple[int, int], data: bytes) -> bool:
    """Whether the data has less than one bit per block of 8 by 8 pixels."""
    blocks = -(-size[0] // 8) * -(-size[1] // 8)
    return blocks > 8 * len(data)
