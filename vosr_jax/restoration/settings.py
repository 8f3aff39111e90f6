"""Settings of one restoration, checked before anything is computed."""

import dataclasses
from typing import TYPE_CHECKING, Any

from vosr_jax.errors import UserError
from vosr_jax.restoration.colour import FIXES
from vosr_jax.restoration.shapes import SHAPES

if TYPE_CHECKING:
    from vosr_jax.diffusion.sampling import SamplerSettings
    from vosr_jax.restoration.model import RestorationModel

_LARGEST_SCALE = 8


def sampler_settings(model: "RestorationModel", given: dict[str, Any]) -> "SamplerSettings":
    """The checkpoint's sampler with what is given and not None.

    Args:
      model: the checkpoint.
      given: steps, guidance_scale, weak_strength, schedule, guidance_interval.

    Raises:
      UserError: a value that cannot be used, or guidance for a one-step model.
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
    if own.r_input and (guided or "guidance_interval" in given):
        raise UserError(
            f"{model.name} is a one-step model, whose guidance is fixed by its training; "
            "leave guidance_scale, weak_strength and guidance_interval out"
        )
    return dataclasses.replace(own, **given)


def check_settings(
    scale, tile_size, tile_overlap, vae_tile_size, colour_fix, output, shapes
) -> None:
    """Raise a UserError that names the first argument of the upscaler that cannot be used."""
    if not 1 <= scale <= _LARGEST_SCALE:
        raise UserError(f"scale must be between 1 and {_LARGEST_SCALE}, not {scale}")
    if tile_size != "auto" and not (isinstance(tile_size, int) and tile_size >= 0):
        raise UserError(f"tile_size must be auto, 0 for no tiles, or pixels, not {tile_size}")
    if tile_overlap < 0:
        raise UserError(f"tile_overlap must not be negative, but is {tile_overlap}")
    if vae_tile_size is not None and vae_tile_size < 0:
        raise UserError(f"vae_tile_size must not be negative, but is {vae_tile_size}")
    if colour_fix is not None and colour_fix not in FIXES:
        raise UserError(f"colour_fix '{colour_fix}' is unknown; choose {', '.join(FIXES)}")
    if output not in ("pil", "numpy"):
        raise UserError(f"output '{output}' is unknown; choose pil or numpy")
    if shapes not in SHAPES:
        raise UserError(f"shapes '{shapes}' is unknown; choose {', '.join(SHAPES)}")
