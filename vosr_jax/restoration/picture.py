"""Photographs in and out of restoration: upright RGB inside, what the file had outside.

Greyscale stays greyscale, transparency and the colour profile are kept; CMYK becomes RGB through
its embedded profile. Every failure names the file.
"""

import contextlib
import dataclasses
import io
import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from vosr_jax.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"}
_FORMATS |= {".tif": "TIFF", ".tiff": "TIFF"}
_OPTIONS: dict[str, dict] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
    "TIFF": {"compression": "tiff_deflate"},
}
_WITHOUT_ALPHA = ("JPEG", "BMP")


@dataclasses.dataclass(frozen=True)
class Photograph:
    """A picture made ready for restoration.

    Attributes:
      rgb: mode RGB, upright.
      alpha: mode L of the same size, or None.
      grey: whether the source had no colours.
      icc_profile: the profile that `rgb` (or its grey) is meant in, or None.
    """

    rgb: Image.Image
    alpha: Image.Image | None = None
    grey: bool = False
    icc_profile: bytes | None = None

    def finish(self, restored: Image.Image) -> Image.Image:
        """Give a restored RGB picture of any size what the source had.

        Transparency is resized bicubically; the profile lies in `info["icc_profile"]`.
        """
        picture = restored.convert("L") if self.grey else restored.copy()
        if self.alpha is not None:
            picture.putalpha(self.alpha.resize(picture.size, Image.Resampling.BICUBIC))
        picture.info.pop("icc_profile", None)
        if self.icc_profile:
            picture.info["icc_profile"] = self.icc_profile
        return picture


def read_photograph(path: str | Path) -> Photograph:
    """Read one still picture from disk.

    Raises:
      UserError: no such file, no picture, a truncated, animated or multi-page one, or one of so
        many pixels that it may be meant to exhaust the memory.
    """
    path = Path(path)
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty (0 bytes); give a picture")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                _refuse_several_frames(image, path)
                image.load()
                return prepare(image, str(path))
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is no picture that can be read; give a PNG or JPEG") from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise UserError(f"{path} has more than {limit} megapixels; cut it first") from error
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; check the path") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UserError(f"{path} is damaged or unreadable ({error}); replace it") from error


def prepare(image: Image.Image, name: str = "the picture") -> Photograph:
    """Turn an opened picture of any mode upright and into 8-bit RGB.

    Args:
      image: any PIL picture.
      name: how errors call it.

    Raises:
      UserError: a mode that holds no photograph, such as floating point.
    """
    image = ImageOps.exif_transpose(image)
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        return Photograph(_from_16_bit(image), grey=True, icc_profile=profile)
    if image.mode == "F":
        raise UserError(f"{name} holds floating-point values of unknown range; save it as 8 bits")
    if image.mode in ("1", "L"):
        if "transparency" not in image.info:
            return Photograph(image.convert("L").convert("RGB"), grey=True, icc_profile=profile)
    if image.mode in ("CMYK", "LAB", "YCbCr", "HSV"):
        return Photograph(_to_srgb(image, profile))
    if image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        grey = image.mode in ("1", "L", "LA", "La")
        full = image.convert("RGBA")
        alpha = full.getchannel("A")
        opaque = alpha.getextrema() == (255, 255)
        return Photograph(full.convert("RGB"), None if opaque else alpha, grey, profile)
    return Photograph(image.convert("RGB"), icc_profile=profile)


def check_target(path: Path, transparent: bool = False) -> str:
    """Pillow's name for the format of a file to be written.

    Raises:
      UserError: the suffix is none of SUFFIXES, or its format cannot hold transparency.
    """
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        known = ", ".join(SUFFIXES)
        raise UserError(f"{path}: cannot write '{path.suffix}' files; choose one of {known}")
    if transparent and kind in _WITHOUT_ALPHA:
        raise UserError(f"{path}: {kind} holds no transparency; write a PNG instead")
    return kind


def make_folder(path: str | Path) -> None:
    """Make a folder for results, with those above it.

    Raises:
      UserError: it cannot be made or written.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path} ({error.strerror})") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"the folder {path} cannot be written; choose another")


def write_picture(image: Image.Image, path: str | Path) -> None:
    """Write under a temporary name in the same folder, then rename: no half-written results.

    Args:
      image: its profile, if any, in `info["icc_profile"]`.
      path: the suffix chooses the format; missing folders are made.

    Raises:
      UserError: an unknown suffix, transparency where the format has none, or a folder or disk
        that cannot be written.
    """
    path = Path(path)
    kind = check_target(path, "A" in image.getbands())
    make_folder(path.parent)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    options = _OPTIONS.get(kind, {}) | {"icc_profile": image.info.get("icc_profile")}
    try:
        with part.open("wb") as file:
            image.save(file, format=kind, **options)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {path} ({reason}); check folder and disk") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _refuse_several_frames(image: Image.Image, path: Path) -> None:
    # A phone's MPO file is one photograph; its further frames are previews and depth.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise UserError(f"{path} is animated or has several pages; give a still picture")


def _from_16_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float64)
    if values.size and values.max() > 255:
        values = values / 257
    grey = np.rint(np.clip(values, 0, 255)).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if profile and image.mode == "CMYK":
        # A damaged profile should cost the exact colours, not the picture.
        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            srgb = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
            if converted is not None:
                return converted
    return image.convert("RGB")
