"""Names for points between keeping to the picture and inventing detail.

Guidance leans from the branch that sees the picture well to the one that sees it dimly:
v_weak + s (v_full - v_weak). A model without a weak branch has its strength instead, the share of
its change that is applied. docs/upscaling.md shows what each preset does.
"""

import dataclasses
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from vosr_jax.restoration.model import RestorationModel

PresetName = Literal["faithful", "balanced", "creative"]
PRESETS: tuple[str, ...] = get_args(PresetName)


@dataclasses.dataclass(frozen=True)
class Preset:
    """Settings of the guidance.

    Attributes:
      guidance_scale: s above.
      weak_strength: how much the dim branch sees; None means the checkpoint's own.
    """

    guidance_scale: float
    weak_strength: float | None = None


# 0.5 and -0.5 are the released models' own presets; 1 is the well-seeing branch alone.
_LATENT = {
    "faithful": Preset(1.0),
    "balanced": Preset(0.5),
    "creative": Preset(-0.5),
}
# Chosen by eye on the nano model, which predicts a residual on pixels: at 0 it hardly leaves the
# enlarged input; towards 1 noise goes and edges firm up; above it, plain areas go flat.
_PIXELS = {
    "faithful": Preset(0.5),
    "balanced": Preset(1.0),
    "creative": Preset(1.5),
}

# A one-step model's change of the enlarged input, whole at 1.
_STRENGTH = {"faithful": 0.7, "balanced": 1.0, "creative": 1.25}


def preset_settings(name: str, model: "RestorationModel") -> dict[str, float]:
    """The settings of one of PRESETS for a model, as keyword arguments of the upscaler.

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
