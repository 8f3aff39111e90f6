"""Degradation of single images in numpy and OpenCV: Real-ESRGAN's and milder recipes."""

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
    """Degrade a clean image.

    Args:
      hr: [H, W, 3] uint8 RGB.
      rng: source of every draw; the same state gives the same images.
      settings: one recipe or a mixture; the defaults are the official training's.
      scale: factor between HR and LR size.

    Returns:
      lr: [H // scale, W // scale, 3] float32, neither clipped nor rounded.
      lq: [H, W, 3] uint8, the LR image resized back.
    """
    plan = sample_plan(rng, hr.shape[0], hr.shape[1], settings, scale)
    return plan.apply(hr)
