"""A photo as a plain value, and conversion of Pillow images of every mode to it.

Grey stays grey. Values keep their colour profile. CMYK and Lab become sRGB, through the embedded
profile if there is one. Transparency is kept as a separate array of the same size.
"""

import contextlib
import dataclasses
import io

import cv2
import numpy as np
from PIL import Image, ImageCms

from vosr_jax.errors import UserError
from vosr_jax.files.colour_profiles import adobe_rgb
from vosr_jax.files.metadata import Metadata, is_adobe_rgb, of_image

# Bytes; Pillow and many programs refuse a PNG with a larger profile.
_LONGEST_PROFILE = 1 << 20


@dataclasses.dataclass(frozen=True)
class Photo:
    """A photo, upright.

    Attributes:
      pixels: [H, W, 3] RGB, uint8 or uint16 over the whole range. A fully transparent pixel has
        the nearest visible colour.
      alpha: [H, W] of the same type, or None.
      grey: whether the source was greyscale.
      icc_profile: the profile of the values (or of their grey), or None for sRGB.
      metadata: the file's other metadata.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    grey: bool = False
    icc_profile: bytes | None = None
    metadata: Metadata = Metadata()

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def bits(self) -> int:
        """8 or 16."""
        return 8 * self.pixels.itemsize

    @property
    def rgb(self) -> Image.Image:
        """The pixels as an 8-bit image of mode RGB."""
        return Image.fromarray(eight_bits(self.pixels))

    @property
    def image(self) -> Image.Image:
        """The photo as an 8-bit image of mode L, LA, RGB or RGBA, with its profile and EXIF."""
        image = self.rgb.convert("L") if self.grey else self.rgb
        if self.alpha is not None:
            image.putalpha(Image.fromarray(eight_bits(self.alpha)))
        if self.icc_profile:
            image.info["icc_profile"] = self.icc_profile
        if self.metadata.dpi is not None:
            image.info["dpi"] = self.metadata.dpi
        if self.metadata.exif is not None:
            image.info["exif"] = b"Exif\0\0" + self.metadata.exif
        if self.metadata.xmp is not None:
            image.info["xmp"] = self.metadata.xmp
        return image


def eight_bits(values: np.ndarray) -> np.ndarray:
    """Convert uint8 or uint16 to uint8."""
    if values.dtype == np.uint8:
        return values
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def to_uint8(picture: np.ndarray, *, truncate: bool = False) -> np.ndarray:
    """Convert [0, 1] to 0..255, rounded; `truncate` rounds down, as the official scripts do."""
    scaled = np.clip(picture, 0, 1).astype(np.float32) * 255
    return (scaled if truncate else np.rint(scaled)).astype(np.uint8)


def of_pillow(image: Image.Image, name: str = "the picture") -> Photo:
    """Convert a Pillow image to a photo, turned upright.

    Args:
      image: image of any mode. I;16 holds 16 bits; so does I if its values exceed 8 bits.
      name: the photo's name in errors.

    Raises:
      UserError: a mode that holds no photo, such as floating point.
    """
    image.load()
    metadata, orientation = of_image(image)
    pixels, alpha, grey, profile = of_modes(image, name)
    return assemble(pixels, alpha, grey, profile, metadata, orientation)


def of_modes(
    image: Image.Image, name: str
) -> tuple[np.ndarray, np.ndarray | None, bool, bytes | None]:
    """Return (pixels [H, W] or [H, W, 3], alpha or None, grey, profile), not turned upright yet.

    Raises:
      UserError: a mode that holds no photo.
    """
    mode, profile = image.mode, image.info.get("icc_profile")
    if mode == "F":
        raise UserError(f"{name} holds floating-point values of unknown range; save it as 8 bits")
    if mode.startswith("I"):
        return _of_integers(image, name), None, True, profile
    if mode in ("CMYK", "LAB", "YCbCr", "HSV"):
        return np.asarray(_to_srgb(image, profile)), None, False, None
    if mode == "P":
        return *of_palette(image), False, profile
    grey = mode in ("1", "L", "LA", "La")
    if mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[mode])
    if image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info:
        values = np.asarray(image.convert("RGBA"))
        return (values[..., 0] if grey else values[..., :3]), values[..., 3], grey, profile
    return np.asarray(image.convert("L" if grey else "RGB")), None, grey, profile


def assemble(
    pixels: np.ndarray,
    alpha: np.ndarray | None,
    grey: bool,
    profile: bytes | None,
    metadata: Metadata | None = None,
    orientation: int = 1,
) -> Photo:
    """Make a photo from decoded values.

    Args:
      pixels: [H, W] or [H, W, 3], uint8 or uint16.
      alpha: [H, W] or None.
      grey: whether the source had no colours.
      profile: the embedded profile, of any colour space.
      metadata: the file's metadata.
      orientation: EXIF orientation to apply, 1 to 8.
    """
    metadata = metadata or Metadata()
    if alpha is not None and (alpha == np.iinfo(alpha.dtype).max).all():
        alpha = None
    pixels = _upright(pixels if pixels.ndim == 3 else pixels[..., None], orientation)
    pixels = np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
    if alpha is not None:
        alpha = np.ascontiguousarray(_upright(alpha, orientation))
        pixels = _visible_colours(pixels, alpha)
    profile = _kept(profile, grey)
    if profile is None and not grey and is_adobe_rgb(metadata):
        profile = adobe_rgb()
    if profile is not None and len(profile) > _LONGEST_PROFILE and pixels.dtype == np.uint8:
        pixels, profile = _without(profile, pixels, grey), None
    return Photo(pixels, alpha, grey, profile, metadata)


def _upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror values according to EXIF's orientation."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values[:, ::-1] if orientation in (2, 3, 6, 7) else values


def _of_integers(image: Image.Image, name: str) -> np.ndarray:
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        return values.astype(np.uint16)
    lowest, highest = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if lowest < 0 or highest > 65535:
        raise UserError(f"{name} holds values outside 0..65535; save it as 8 or 16 bits")
    # Pillow scales a PGM's values to 16 bits; other formats may hold 8 bits in wide integers.
    if highest < 256 and image.format != "PPM":
        raise UserError(
            f"{name} holds 32-bit integers up to {highest}, which may mean 8 or 16 bits; "
            "convert it to mode L or I;16"
        )
    return values.astype(np.uint16)


def of_palette(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """(pixels [H, W, 3], alpha or None); Pillow's own conversion takes a third more memory."""
    if image.im.getpalettemode() == "RGBA":
        values = np.asarray(image.convert("RGBA"))
        return values[..., :3], values[..., 3]
    places, clear = np.asarray(image), image.info.get("transparency")
    colours = np.zeros((256, 3), np.uint8)
    known = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    colours[: len(known)] = known
    if clear is None:
        return colours[places], None
    opacities = np.full(256, 255, np.uint8)
    if isinstance(clear, bytes):
        opacities[: len(clear)] = np.frombuffer(clear[:256], np.uint8)
    elif isinstance(clear, int) and 0 <= clear < 256:
        opacities[clear] = 0
    return colours[places], opacities[places]


def _kept(profile: bytes | None, grey: bool) -> bytes | None:
    """The profile, or None if its colour space is not the result's."""
    space = (profile or b"")[16:20]
    return profile if space == b"RGB " or (grey and space == b"GRAY") else None


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Convert an image from a profile to sRGB; None if the profile cannot be used."""
    # A damaged profile may cost the exact colours but not the photo.
    with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return _through(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    return None


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    converted = None
    if image.mode == "LAB":
        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            converted = _through(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    elif image.mode == "CMYK" and profile:
        converted = to_srgb(image, profile)
    return image.convert("RGB") if converted is None else converted


def _through(image: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image | None:
    return ImageCms.profileToProfile(
        image,
        source,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def _without(profile: bytes, pixels: np.ndarray, grey: bool) -> np.ndarray:
    """Convert the pixels to sRGB; unchanged if the profile cannot be used."""
    image = Image.fromarray(pixels)
    if grey and profile[16:20] == b"GRAY":
        image = image.convert("L")
    converted = to_srgb(image, profile)
    return pixels if converted is None else np.asarray(converted)


def _visible_colours(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Give hidden pixels the nearest visible colour, or theirs would bleed over visible edges."""
    hidden = (alpha == 0).astype(np.uint8)
    if not hidden.any() or hidden.all():
        return pixels
    _, labels = cv2.distanceTransformWithLabels(
        hidden, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    colours = np.zeros((int(labels.max()) + 1, 3), pixels.dtype)
    visible = hidden == 0
    colours[labels[visible]] = pixels[visible]
    return colours[labels]
