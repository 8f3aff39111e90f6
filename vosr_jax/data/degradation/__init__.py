"""Clean pictures made low-quality, one at a time, in numpy and OpenCV: Real-ESRGAN's and milder."""

import numpy as np

from vosr_jax.data.degradation.plan import DegradationPlan, Settings, sample_plan
from vosr_jax.data.degradation.settings import (
    BlurSettings,
    DegradationSettings,
    RealESRGANSettings,
    ReducedSettings,
    StageSettings,
)

__all__ = [
    "BlurSettings",
    "DegradationSettings",
    "DegradationPlan",
    "RealESRGANSettings",
    "ReducedSettings",
    "Settings",
    "StageSettings",
    "degrade",
    "sample_plan",
]

_DEFAULT = RealESRGANSettings()


def degrade(
    hr: np.ndarray,
    rng: np.random.Generator,
    settings: Settings = _DEFAULT,
    scale: int = 4,
) -> tuple[np.ndarray, np.ndarray]:
    """Make a low-quality picture of a clean one.

    Args:
      hr: [H, W, 3] uint8 RGB.
      rng: where every draw comes from; the same state gives the same pictures.
      settings: what may happen: one recipe or a mixture; the defaults are the official training's.
      scale: how much smaller the LR picture is.

    Returns:
      lr: [H // scale, W // scale, 3] float32, neither clipped nor rounded.
      lq: [H, W, 3] uint8, the LR picture resized back.
    """
    plan = sample_plan(rng, hr.shape[0], hr.shape[1], settings, scale)
    return plan.apply(hr)
