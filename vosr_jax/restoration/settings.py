"""Settings of one restoration, checked before anything is computed."""

import dataclasses
from typing import TYPE_CHECKING, Any

from vosr_jax.errors import UserError
from vosr_jax.restoration.colour import FIXES
from vosr_jax.restoration.shapes import SHAPES

if TYPE_CHECKING:
    from vosr_jax.diffusion.sampler import SamplerSettings
    from vosr_jax.restoration.model import RestorationModel

_LARGEST_SCALE = 8
_STRONGEST = 2
_USUAL_OVERLAP = 64


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


def check_posterior(posterior: str | None) -> None:
    """Raise UserError for an unknown name."""
    if posterior not in (None, "mode", "sample"):
        raise UserError(f"posterior '{posterior}' is unknown; choose mode or sample")


def check_passes(tile_passes: int) -> int:
    """Return the number; raise UserError unless it is 1 or 2."""
    if tile_passes not in (1, 2):
        raise UserError(f"tile_passes must be 1 or 2, not {tile_passes}")
    return tile_passes


def check_settings(
    scale, tile_size, tile_overlap, vae_tile_size, colour_fix, output, shapes, strength=1.0
) -> None:
    """Raise a UserError that names the upscaler's first unusable argument."""
    if not 0 <= strength <= _STRONGEST:
        raise UserError(f"strength must be between 0 and {_STRONGEST}, not {strength:g}")
    if not 1 <= scale <= _LARGEST_SCALE:
        raise UserError(f"scale must be between 1 and {_LARGEST_SCALE}, not {scale}")
    if tile_size != "auto" and not (isinstance(tile_size, int) and tile_size >= 0):
        raise UserError(f"tile_size must be auto, 0 for no tiles, or pixels, not {tile_size}")
    if tile_overlap < 0:
        raise UserError(f"tile_overlap must not be negative, but is {tile_overlap}")
    if tile_size != "auto":
        usable_overlap(tile_size, tile_overlap)
    if vae_tile_size is not None and vae_tile_size < 0:
        raise UserError(f"vae_tile_size must not be negative, but is {vae_tile_size}")
    if colour_fix is not None and colour_fix not in FIXES:
        raise UserError(f"colour_fix '{colour_fix}' is unknown; choose {', '.join(FIXES)}")
    if output not in ("pil", "numpy", "photo"):
        raise UserError(f"output '{output}' is unknown; choose pil, numpy or photo")
    if shapes not in SHAPES:
        raise UserError(f"shapes '{shapes}' is unknown; choose {', '.join(SHAPES)}")


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
