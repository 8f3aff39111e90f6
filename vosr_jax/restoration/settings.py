"""Settings of one restoration: the names to choose from, and the checks before any computing.

docs/sampling.md has figures of the number formats.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

from vosr_jax.errors import UserError

if TYPE_CHECKING:  # the command line reads this file without JAX
    from vosr_jax.diffusion.sampler import SamplerSettings
    from vosr_jax.restoration.model import RestorationModel

PRECISIONS = ("float32", "float16", "mixed", "bfloat16", "auto")
AUTOENCODER_PRECISIONS = ("float32", "float16", "bfloat16", "auto")
FIXES = ("adain", "wavelet", "none")
# "shared": images of all sizes run the same compiled programs, tile by tile. "exact": programs for
# the image's own size. Once compiled they take less time, which suits many images of one size. The
# result is the same up to rounding.
Shapes = Literal["shared", "exact"]
SHAPES: tuple[str, ...] = get_args(Shapes)

# Short formats save no time on CPU. A GPU multiplies float16 and bfloat16 at the same rate, and
# float16 is closer to float32. A TPU multiplies bfloat16 only.
_DENOISER = {"cpu": "float32", "gpu": "float16", "tpu": "mixed"}
_AUTOENCODER = {"cpu": "float32", "gpu": "float16", "tpu": "float32"}
_SAMPLER = ("steps", "guidance_scale", "weak_strength", "schedule", "guidance_interval")
_LARGEST_SCALE = 8
_STRONGEST = 2
_USUAL_OVERLAP = 64


@dataclasses.dataclass(frozen=True)
class UpscalerSettings:
    """Keyword arguments of the upscaler, besides those of the sampler; see `Upscaler.__call__`."""

    scale: float = 4
    tile_size: int | Literal["auto"] = 512
    tile_overlap: int = 64
    vae_tile_size: int | None = None
    colour_fix: str | None = None
    output: str = "pil"
    posterior: str | None = None
    shapes: str = "shared"
    strength: float = 1.0
    tile_passes: int = 1

    @classmethod
    def names(cls) -> set[str]:
        """Names of the arguments."""
        return {field.name for field in dataclasses.fields(cls)}

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "UpscalerSettings":
        """Take the settings among keyword arguments, and leave the others."""
        return cls(**{name: given[name] for name in cls.names() & given.keys()})

    def check(self) -> None:
        """Raise a UserError that names the first unusable one; their types are right already."""
        if not 0 <= self.strength <= _STRONGEST:
            raise UserError(f"strength must be between 0 and {_STRONGEST}, not {self.strength:g}")
        if not 1 <= self.scale <= _LARGEST_SCALE:
            raise UserError(f"scale must be between 1 and {_LARGEST_SCALE}, not {self.scale}")
        size, overlap = self.tile_size, self.tile_overlap
        if size != "auto" and not (isinstance(size, int) and size >= 0):
            raise UserError(f"tile_size must be auto, 0 for no tiles, or pixels, not {size}")
        if overlap < 0:
            raise UserError(f"tile_overlap must not be negative, but is {overlap}")
        if isinstance(size, int):
            usable_overlap(size, overlap)
        if self.vae_tile_size is not None and self.vae_tile_size < 0:
            raise UserError(f"vae_tile_size must not be negative, but is {self.vae_tile_size}")
        if self.colour_fix is not None and self.colour_fix not in FIXES:
            raise UserError(f"colour_fix '{self.colour_fix}' is unknown; choose {', '.join(FIXES)}")
        if self.output not in ("pil", "numpy", "photo"):
            raise UserError(f"output '{self.output}' is unknown; choose pil, numpy or photo")
        if self.shapes not in SHAPES:
            raise UserError(f"shapes '{self.shapes}' is unknown; choose {', '.join(SHAPES)}")
        if self.posterior not in (None, "mode", "sample"):
            raise UserError(f"posterior '{self.posterior}' is unknown; choose mode or sample")
        if self.tile_passes not in (1, 2):
            raise UserError(f"tile_passes must be 1 or 2, not {self.tile_passes}")


def divide(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide the upscaler's keyword arguments into the sampler's and the others."""
    sampler = {name: given[name] for name in _SAMPLER if name in given}
    return sampler, {name: value for name, value in given.items() if name not in sampler}


def usable_overlap(tile_size: int, tile_overlap: int) -> int:
    """The overlap for tiles of a side: half a tile if the given one is a tile or more.

    Raises:
      UserError: the tiles would lie so close together that an image would need thousands.
    """
    if not 0 < tile_size:
        return tile_overlap
    step = tile_size - tile_overlap
    if step <= 0 or (8 * step < tile_size and tile_overlap == _USUAL_OVERLAP):
        return tile_size // 2
    if 8 * step < tile_size:
        most = tile_size - -(-tile_size // 8)
        raise UserError(
            f"tile_overlap {tile_overlap} leaves tiles of {tile_size} only {step} px apart, which "
            f"takes for ever; choose at most {most}"
        )
    return tile_overlap


def sampler_settings(model: "RestorationModel", given: dict[str, Any]) -> "SamplerSettings":
    """The checkpoint's sampler settings, replaced by the given values that are not None.

    Args:
      model: the checkpoint.
      given: steps, guidance_scale, weak_strength, schedule, guidance_interval.

    Raises:
      UserError: a value cannot be used, or guidance is given for a one-step model.
    """
    own = model.sampler
    given = {key: value for key, value in given.items() if value is not None}
    if given.get("steps", 1) < 1:
        raise UserError(f"steps must be at least 1, not {given['steps']}")
    if given.get("schedule", "linear") not in ("linear", "cosine"):
        raise UserError(f"schedule '{given['schedule']}' is unknown; choose linear or cosine")
    if "guidance_interval" in given:
        given["guidance_interval"] = tuple(map(float, given["guidance_interval"]))
    start, end = given.get("guidance_interval", (0.0, 1.0))
    if not 0 <= start <= end <= 1:
        raise UserError(
            f"guidance_interval must be two times from 0 to 1 in order, not {start:g} {end:g}"
        )
    weak = given.get("weak_strength", 0.0)
    if not 0 <= weak <= 1:
        raise UserError(f"weak_strength must be between 0 and 1, not {weak:g}")
    guided = given.get("guidance_scale", 1) != 1 or "weak_strength" in given
    if not model.guided and (guided or "guidance_interval" in given):
        raise UserError(
            f"{model.name} {unguided(model)}; leave guidance_scale, weak_strength and "
            "guidance_interval out, or give a strength"
        )
    return dataclasses.replace(own, **given)


def unguided(model: "RestorationModel") -> str:
    """The reason why an unguided model takes no guidance settings."""
    if model.one_step:
        return "is a one-step model, whose guidance is fixed by its training"
    return "was trained without guidance"


def settle(precision: str, autoencoder_precision: str, platform: str) -> tuple[str, str]:
    """Resolve "auto" in the two format names for a platform.

    Args:
      precision: of the denoiser, one of PRECISIONS.
      autoencoder_precision: one of AUTOENCODER_PRECISIONS.
      platform: "cpu", "gpu" or "tpu".

    Raises:
      UserError: a name is unknown.
    """
    chosen = []
    for key, name, known, automatic in (
        ("precision", precision, PRECISIONS, _DENOISER),
        ("autoencoder_precision", autoencoder_precision, AUTOENCODER_PRECISIONS, _AUTOENCODER),
    ):
        if name not in known:
            raise UserError(f"{key} '{name}' is unknown; choose {', '.join(known)}")
        chosen.append(automatic.get(platform, "float32") if name == "auto" else name)
    return chosen[0], chosen[1]
