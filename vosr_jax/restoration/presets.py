"""Presets between fidelity to the image and invented detail.

Guidance mixes the full branch with the weak one, which sees little of the image:
v_weak + s (v_full - v_weak). A model without a weak branch uses its strength instead, the share of
its change that is applied. docs/upscaling.md shows what each preset does.
"""

import dataclasses
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:  # the command line reads this file without JAX
    from vosr_jax.restoration.model import RestorationModel

PresetName = Literal["faithful", "balanced", "creative"]
PRESETS: tuple[str, ...] = get_args(PresetName)


@dataclasses.dataclass(frozen=True)
class Preset:
    """Settings of the guidance.

    Attributes:
      guidance_scale: s of the formula above.
      weak_strength: how much the weak branch sees; None means the checkpoint's own.
    """

    guidance_scale: float
    weak_strength: float | None = None


# 0.5 and -0.5 are the released models' own presets; 1 is the full branch alone.
_LATENT = {
    "faithful": Preset(1.0),
    "balanced": Preset(0.5),
    "creative": Preset(-0.5),
}
# Chosen by eye on the nano model, which predicts a residual on pixels. At 0 it hardly changes the
# enlarged input. Towards 1 noise disappears and edges sharpen. Above 1 plain areas turn flat.
_PIXELS = {
    "faithful": Preset(0.5),
    "balanced": Preset(1.0),
    "creative": Preset(1.5),
}

# Share of a one-step model's change to the enlarged input; 1 is the whole change.
_STRENGTH = {"faithful": 0.7, "balanced": 1.0, "creative": 1.25}


def preset_settings(name: str, model: "RestorationModel") -> dict[str, float]:
    """Settings of one of PRESETS for a model, as keyword arguments of the upscaler.

    Raises:
      ValueError: no such preset.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown preset '{name}'; choose {', '.join(PRESETS)}")
    if not model.guided:
        return {"strength": _STRENGTH[name]}
    table = _PIXELS if model.parameterization.endpoint == "residual" else _LATENT
    settings = dataclasses.asdict(table[name])
    return {key: value for key, value in settings.items() if value is not None}
