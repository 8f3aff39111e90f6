"""A picture of any kind as restoration sees it: upright 8-bit RGB, and what to give back later.

Greyscale stays greyscale. A colour profile of RGB or grey is kept and put on the result, whose
numbers mean the same colours; CMYK and Lab become sRGB, by the embedded profile where there is
one. Transparency is kept apart, in place.
"""

import contextlib
import dataclasses
import io

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageOps

from vosr_jax.errors import UserError

_DEEPEST = 65535


@dataclasses.dataclass(frozen=True)
class Photograph:
    """A picture made ready for restoration.

    Attributes:
      rgb: mode RGB, upright. Where the picture is wholly transparent, the nearest visible colour.
      alpha: mode L of the same size, or None.
      grey: whether the source had no colours.
      icc_profile: the profile that `rgb` (or its grey) is meant in, or None.
    """

    rgb: Image.Image
    alpha: Image.Image | None = None
    grey: bool = False
    icc_profile: bytes | None = None

    def finish(self, restored: Image.Image, alpha: Image.Image | None = None) -> Image.Image:
        """Give a restored RGB picture of any size what the source had.

        Args:
          restored: mode RGB.
          alpha: the restored transparency, mode L of the same size; without it the source's is
            resized bicubically.

        Returns:
          A picture whose profile, if any, lies in `info["icc_profile"]`.
        """
        picture = restored.convert("L") if self.grey else restored.copy()
        if self.alpha is not None:
            picture.putalpha(alpha or self.alpha.resize(picture.size, Image.Resampling.BICUBIC))
        picture.info.pop("icc_profile", None)
        if self.icc_profile:
            picture.info["icc_profile"] = self.icc_profile
        return picture


def prepare(image: Image.Image, name: str = "the picture") -> Photograph:
    """Turn an opened picture of any mode upright and into 8-bit RGB.

    Args:
      image: any PIL picture; modes I and I;16 hold 16 bits.
      name: how errors call it.

    Raises:
      UserError: a mode that holds no photograph, such as floating point.
    """
    image = ImageOps.exif_transpose(image)
    profile = image.info.get("icc_profile")
    if image.mode == "F":
        raise UserError(f"{name} holds floating-point values of unknown range; save it as 8 bits")
    if image.mode.startswith("I"):
        return Photograph(_from_16_bit(image, name), grey=True, icc_profile=_kept(profile, True))
    if image.mode in ("CMYK", "LAB", "YCbCr", "HSV"):
        return Photograph(_to_srgb(image, profile))
    grey = image.mode in ("1", "L", "LA", "La")
    profile = _kept(profile, grey)
    if image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        full = image.convert("RGBA")
        alpha = full.getchannel("A")
        if alpha.getextrema() != (255, 255):
            return Photograph(_visible_colours(full), alpha, grey, profile)
        image = full
    return Photograph(image.convert("RGB"), None, grey, profile)


def _from_16_bit(image: Image.Image, name: str) -> Image.Image:
    values = np.asarray(image)
    if values.size and (values.min() < 0 or values.max() > _DEEPEST):
        raise UserError(f"{name} holds values outside 0..{_DEEPEST}; save it as 8 or 16 bits")
    return Image.fromarray(np.rint(values / 257).astype(np.uint8)).convert("RGB")


def _kept(profile: bytes | None, grey: bool) -> bytes | None:
    """The profile, unless it is of another kind of colours than the result will have."""
    space = (profile or b"")[16:20]
    return profile if space == b"RGB " or (grey and space == b"GRAY") else None


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    srgb = ImageCms.createProfile("sRGB")
    # A damaged profile should cost the exact colours, not the picture.
    with contextlib.suppress(ImageCms.PyCMSError, OSError):
        source = None
        if image.mode == "LAB":
            source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        elif image.mode == "CMYK" and profile:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source is not None:
            converted = ImageCms.profileToProfile(
                image,
                source,
                srgb,
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
            if converted is not None:
                return converted
    return image.convert("RGB")


def _visible_colours(image: Image.Image) -> Image.Image:
    """RGB of an RGBA picture; what nobody sees must not bleed over the edges of what is seen."""
    pixels = np.asarray(image)
    hidden = (pixels[..., 3] == 0).astype(np.uint8)
    if not hidden.any() or hidden.all():
        return image.convert("RGB")
    _, labels = cv2.distanceTransformWithLabels(
        hidden, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    colours = np.zeros((int(labels.max()) + 1, 3), np.uint8)
    visible = hidden == 0
    colours[labels[visible]] = pixels[visible][:, :3]
    return Image.fromarray(colours[labels])
