"""Picture files in and out of restoration. Every failure names the file."""

import contextlib
import glob
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from vosr_jax.errors import UserError
from vosr_jax.restoration.photograph import Photograph, prepare

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
MAX_MEGAPIXELS = 100.0

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"}
_FORMATS |= {".tif": "TIFF", ".tiff": "TIFF"}
_OPTIONS: dict[str, dict] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
    "TIFF": {"compression": "tiff_deflate"},
}
_WITHOUT_ALPHA = ("JPEG", "BMP")
_LONGEST_SIDE = {"JPEG": 65535, "WEBP": 16383}
_pillows_limit = threading.Lock()


def read_photograph(path: str | Path, max_megapixels: float = MAX_MEGAPIXELS) -> Photograph:
    """Read one still picture from disk.

    Args:
      path: the file.
      max_megapixels: a larger picture is refused by what its header says, before it is decoded.

    Raises:
      UserError: no such file, no picture, a truncated, animated or multi-page one, or one that
        is too large.
    """
    with _opened(path, max_megapixels) as image:
        image.load()
        return prepare(image, str(path))


def picture_size(path: str | Path, max_megapixels: float = MAX_MEGAPIXELS) -> tuple[int, int]:
    """(width, height) from the header, before the orientation that EXIF asks for.

    Raises:
      UserError: as `read_photograph`, as far as the header tells.
    """
    with _opened(path, max_megapixels) as image:
        return image.size


@contextlib.contextmanager
def _opened(path: str | Path, max_megapixels: float) -> Iterator[Image.Image]:
    path = Path(path)
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder; give a picture")
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty (0 bytes); give a picture")
        with warnings.catch_warnings():
            # Pillow warns of damaged metadata, which a restored picture does not need.
            warnings.simplefilter("ignore", UserWarning)
            with _header(path) as image:
                _refuse_large(image, path, max_megapixels)
                _refuse_several_frames(image, path)
                yield image
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is no picture that can be read; give a PNG or JPEG") from error
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; check the path") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UserError(f"{path} is damaged or unreadable ({error}); replace it") from error


def _header(path: Path) -> Image.Image:
    """Open a picture without Pillow's own limit, which is one for all of the process."""
    with _pillows_limit:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _refuse_large(image: Image.Image, path: Path, max_megapixels: float) -> None:
    width, height = image.size
    if width * height > max_megapixels * 1e6:
        raise UserError(
            f"{path} is {width}x{height}, more than {max_megapixels:g} megapixels; cut it, or "
            "raise the limit with --max-megapixels if you trust it and have the memory"
        )


def _refuse_several_frames(image: Image.Image, path: Path) -> None:
    # A phone's MPO file is one photograph; its further frames are previews and depth.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise UserError(f"{path} is animated or has several pages; give a still picture")


def check_target(path: Path, transparent: bool = False, size: tuple[int, int] | None = None) -> str:
    """Pillow's name for the format of a file to be written.

    Args:
      path: the file.
      transparent: whether it has to hold transparency.
      size: (width, height), if known.

    Raises:
      UserError: the suffix is none of SUFFIXES, or its format cannot hold such a picture.
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
      UserError: an unknown suffix, a picture that the format cannot hold, or a folder or disk
        that cannot be written.
    """
    path = Path(path)
    kind = check_target(path, "A" in image.getbands(), image.size)
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


def remove_parts(path: Path) -> None:
    """Remove what writers of this file that were killed have left behind."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with contextlib.suppress(OSError):
            part.unlink()
