"""Euler samplers: multi-step with guidance, and one-step with an interval's end r.

After the official vosr.py (sample_multistep_fm, sample_onestep). Values that all steps share are
computed once (`build_context`). Each run of equal steps is one loop. Steps that guidance does not
change skip the weak branch.
"""

import dataclasses
import itertools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vosr_jax.diffusion.denoiser import Denoiser, Times, as_denoiser
from vosr_jax.diffusion.guidance import GuidanceSettings, weak_condition
from vosr_jax.diffusion.parameterization import Parameterization, VelocityFn


@dataclasses.dataclass(frozen=True)
class SamplerSettings:
    """Settings of the sampler.

    Attributes:
      steps: number of steps, one network evaluation each (two if guided).
      schedule: "linear": t = 1 - i / steps; "cosine": t = cos(pi/2 * i / steps).
      guidance_scale: s in v_weak + s (v_full - v_weak); 1 needs no weak branch.
      guidance_interval: (t_start, t_end); guidance acts while t_start <= t <= t_end.
      weak_strength: w of the weak condition w * lq.
      r_input: whether the network takes the step's end as r and returns the average velocity. Such
        a student has learned its teacher's guidance and is not guided.
    """

    steps: int = 25
    schedule: Literal["linear", "cosine"] = "linear"
    guidance_scale: float = 1.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    weak_strength: float = 0.15
    r_input: bool = False

    @classmethod
    def from_guidance(cls, guidance: GuidanceSettings, **rest: Any) -> "SamplerSettings":
        """Derive the sampler's settings from the guidance settings of training."""
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
        # In float32 like the times: 0.8 must lie inside an interval that ends at 0.8.
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


class SamplerContext(NamedTuple):
    """Values that all steps share, for any latent.

    Attributes:
      ends: [steps + 1] times from 1 to 0.
      times: `Denoiser.times` of every step's start, leading axis steps.
      null_context: `Denoiser.null_context`, or None if no step is guided.
      guidance_scale, weak_strength: [].
    """

    ends: Array | np.ndarray
    times: Times
    null_context: Any
    guidance_scale: Array
    weak_strength: Array

    def at(self, step: int | Array) -> "StepContext":
        """Slice the values of one step, from arrays of NumPy or JAX."""
        times = jax.tree.map(lambda x: x[step][None], self.times)
        return StepContext(self.ends[step], self.ends[step + 1], times, *self[2:])


class StepContext(NamedTuple):
    """Values that the network calls of one step share.

    Attributes:
      t, t_next: [], the step's start and end.
      times: `Denoiser.times` of t, leading axis 1.
      null_context, guidance_scale, weak_strength: as in SamplerContext.
    """

    t: Array
    t_next: Array
    times: Times
    null_context: Any
    guidance_scale: Array
    weak_strength: Array


def build_context(denoiser: Denoiser, settings: SamplerSettings) -> SamplerContext:
    """Compute the values that all steps share."""
    ends = jnp.asarray(settings.times())
    guided = any(guided for guided, _, _ in settings.runs())
    return SamplerContext(
        ends,
        denoiser.times(ends[:-1], ends[1:] if settings.r_input else None),
        denoiser.null_context() if guided else None,
        jnp.float32(settings.guidance_scale),
        jnp.float32(settings.weak_strength),
    )


def step_velocity(
    denoiser: Denoiser,
    step: StepContext,
    context: Any,
    condition: Array,
    z: Array,
    *,
    guided: bool,
    extent: Array | None = None,
) -> Array:
    """Call the network once.

    Args:
      denoiser: the network.
      step: from `SamplerContext.at`.
      context: `Denoiser.precompute` of these rows' visual tokens; None without tokens.
      condition, z: [B, h, w, C] latents.
      guided: whether to evaluate the weak branch.
      extent: [B, 2], how much of each row is latent; see `LightningDiT.denoise`.

    Returns:
      The velocity [B, h, w, C].
    """
    if not guided:
        return denoiser.velocity(condition, z, step.times, context, extent)
    weak = weak_condition(condition, None, step.weak_strength)[0]
    scale = step.guidance_scale
    return denoiser.guided(
        condition, weak, z, step.times, context, step.null_context, scale, extent
    )


def euler_step(z: Array, velocity: Array, step: StepContext) -> Array:
    """z at the step's end."""
    return z - (step.t - step.t_next) * velocity


def run_steps(
    denoiser: Denoiser,
    sampler: SamplerContext,
    context: Any,
    lq_latent: Array,
    z: Array,
    first: int | Array,
    last: int | Array,
    *,
    guided: bool,
) -> Array:
    """Run steps first to last - 1, all guided or none, in one loop.

    Args:
      denoiser, context, guided: as in `step_velocity`.
      sampler: from `build_context`.
      lq_latent, z: [B, h, w, C] latents.
      first, last: indices of steps.
    """

    def body(index: Array, z: Array) -> Array:
        step = sampler.at(index)
        velocity = step_velocity(denoiser, step, context, lq_latent, z, guided=guided)
        return euler_step(z, velocity, step)

    return jax.lax.fori_loop(first, last, body, z)


def sample(
    network: VelocityFn | Denoiser,
    lq_latent: Array,
    noise: Array,
    settings: SamplerSettings,
    *,
    visual_tokens: Array | None = None,
    parameterization: Parameterization | None = None,
) -> Array:
    """Integrate from noise at t = 1 to a latent at t = 0.

    Args:
      network: (condition, noisy, t, visual_tokens, r) -> output; or a denoiser, such as
        `CachedDenoiser`, which does less work for the same result.
      lq_latent: [B, h, w, C], the clean condition.
      noise: [B, h, w, C] standard normal draws.
      settings: steps and guidance.
      visual_tokens: [B, N, D], if the network takes them.
      parameterization: the meaning of a function's output, VOSR's own by default; a denoiser
        already has one.

    Returns:
      The restored latent [B, h, w, C].
    """
    denoiser = as_denoiser(network, parameterization)
    sampler = build_context(denoiser, settings)
    context = None if visual_tokens is None else denoiser.precompute(visual_tokens)
    z = noise
    for guided, first, last in settings.runs():
        z = run_steps(denoiser, sampler, context, lq_latent, z, first, last, guided=guided)
    return denoiser.parameterization.to_latent(z, lq_latent)
