"""Euler samplers: multi-step with guidance, and the one-step kind with an interval's end r.

After the official vosr.py (sample_multistep_fm, sample_onestep), with each run of equal steps
in one loop and no second branch where guidance does nothing.
"""

import dataclasses
import itertools
from typing import Literal

import numpy as np
from jax import Array

from vosr_jax.diffusion.branches import Branches, Plain
from vosr_jax.diffusion.conditions import GuidanceSettings
from vosr_jax.diffusion.parameterization import Parameterization, VelocityFn
from vosr_jax.diffusion.walk import Parts, Whole, advance, prepare, start


@dataclasses.dataclass(frozen=True)
class SamplerSettings:
    """How noise becomes a latent.

    Attributes:
      steps: network evaluations along the way (twice as many where guided).
      schedule: "linear": t = 1 - i / steps; "cosine": t = cos(pi/2 * i / steps).
      guidance_scale: s in v_weak + s (v_full - v_weak); 1 needs no weak branch.
      guidance_interval: (t_start, t_end); guidance acts where t_start <= t <= t_end.
      weak_strength: w of the weak condition w * lq.
      r_input: the network takes the step's end as r and gives the average velocity; such a
        student has its teacher's guidance learned and is not guided.
    """

    steps: int = 25
    schedule: Literal["linear", "cosine"] = "linear"
    guidance_scale: float = 1.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    weak_strength: float = 0.15
    r_input: bool = False

    @classmethod
    def from_guidance(cls, guidance: GuidanceSettings, **rest) -> "SamplerSettings":
        """Sampling as the training's guidance settings suggest."""
        scale = 1.0 if guidance.kind == "none" else guidance.scale
        return cls(
            guidance_scale=scale,
            guidance_interval=guidance.interval,
            weak_strength=guidance.weak_strength,
            **rest,
        )

    def times(self) -> np.ndarray:
        """The steps + 1 times from 1 to 0, float32."""
        if self.schedule == "linear":
            return np.linspace(1.0, 0.0, self.steps + 1, dtype=np.float32)
        times = np.cos(np.linspace(0.0, np.pi / 2, self.steps + 1, dtype=np.float32))
        return times.astype(np.float32)

    def guided(self, t: float) -> bool:
        """Whether the step that starts at t needs the weak branch."""
        # In float32, as the times are: 0.8 must count as inside an interval that ends at 0.8.
        start, end = (np.float32(limit) for limit in self.guidance_interval)
        inside = bool(start <= np.float32(t) <= end)
        return not self.r_input and self.guidance_scale != 1.0 and inside

    def runs(self) -> list[tuple[bool, int, int]]:
        """(guided, first step, step after the last) of every run of equal steps."""
        times, runs = self.times(), []
        for guided, steps in itertools.groupby(
            range(self.steps), key=lambda i: self.guided(float(times[i]))
        ):
            indices = list(steps)
            runs.append((guided, indices[0], indices[-1] + 1))
        return runs


def sample(
    network: VelocityFn | Branches,
    lq_latent: Array,
    noise: Array,
    settings: SamplerSettings,
    *,
    visual_tokens: Array | None = None,
    parameterization: Parameterization | None = None,
    parts: Parts | None = None,
) -> Array:
    """Integrate from noise at t = 1 to a latent at t = 0.

    Args:
      network: (condition, noisy, t, visual_tokens, r) -> output, the denoiser itself; or its
        branches, such as `branches.Remembered`, which do less work for the same result.
      lq_latent: [B, h, w, C], the clean condition.
      noise: [B, h, w, C] standard normal draws.
      settings: steps and guidance.
      visual_tokens: [B, N, D] where the network has them, or as `parts` wants them.
      parameterization: what the network predicts; VOSR's own by default.
      parts: how the latent is cut into tiles; the whole latent by default.

    Returns:
      The restored latent [B, h, w, C].
    """
    form = parameterization or Parameterization()
    branches = network if isinstance(network, Branches) else Plain(network)
    parts = parts or Whole()
    task = prepare(branches, parts, settings, lq_latent, visual_tokens)
    walk = start(noise)
    for guided, first, last in settings.runs():
        questions = first * parts.count, last * parts.count
        walk = advance(branches, parts, form, task, walk, *questions, guided=guided)
    return form.to_latent(walk.z, lq_latent)
