"""Euler samplers: multi-step with guidance, and the one-step kind with an interval's end r.

After the official vosr.py (sample_multistep_fm, sample_onestep). What all steps share is computed
once (`build_context`), each run of equal steps is one loop, and there is no second branch where
guidance does nothing.
"""

import dataclasses
import itertools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vosr_jax.diffusion.branches import Branches, Plain
from vosr_jax.diffusion.conditions import GuidanceSettings, weak_condition
from vosr_jax.diffusion.parameterization import Parameterization, VelocityFn


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


class SamplerContext(NamedTuple):
    """What all steps share, whatever the latent.

    Attributes:
      times: [steps + 1] from 1 to 0.
      features: what the network makes of the times, leading axis steps.
      constants: what it needs for the weak branch, or None.
      guidance_scale, weak_strength: [].
    """

    times: Array
    features: Any
    constants: Any
    guidance_scale: Array
    weak_strength: Array

    def at(self, step: int | Array) -> "StepContext":
        """What one step needs of it, of arrays of NumPy or of JAX."""
        features = jax.tree.map(lambda x: x[step][None], self.features)
        return StepContext(self.times[step], self.times[step + 1], features, *self[2:])


class StepContext(NamedTuple):
    """What the network calls of one step share.

    Attributes:
      t, t_next: [], the step's begin and end.
      features: what the network makes of the times, leading axis 1.
      constants, guidance_scale, weak_strength: as in SamplerContext.
    """

    t: Array
    t_next: Array
    features: Any
    constants: Any
    guidance_scale: Array
    weak_strength: Array


def build_context(branches: Branches, settings: SamplerSettings) -> SamplerContext:
    """Compute what all steps share."""
    times = jnp.asarray(settings.times())
    ends = times[1:] if settings.r_input else None
    guided = any(guided for guided, _, _ in settings.runs())
    return SamplerContext(
        times,
        branches.times(times[:-1], ends),
        branches.constants() if guided else None,
        jnp.float32(settings.guidance_scale),
        jnp.float32(settings.weak_strength),
    )


def guided_velocity(
    branches: Branches,
    form: Parameterization,
    step: StepContext,
    memory: Any,
    condition: Array,
    noisy: Array,
    *,
    guided: bool,
    extent: Array | None = None,
) -> tuple[Array, Array]:
    """Call the network once and mix its branches.

    Args:
      branches: the network.
      form: what it predicts.
      step: from `SamplerContext.at`.
      memory: from `branches.remember`, of these rows' visual tokens; None without.
      condition, noisy: [B, h, w, C] latents.
      guided: whether there is a weak branch.
      extent: [B, 2], how much of each row is latent; see `LightningDiT.denoise`.

    Returns:
      (velocity [B, h, w, C], rows that were computed twice [B] bool).
    """
    t = jnp.full(len(noisy), step.t)
    weak = weak_condition(condition, None, step.weak_strength)[0] if guided else None
    made = branches.evaluate(condition, weak, noisy, step.features, memory, step.constants, extent)
    velocity = form.velocity(made.full, noisy, t)
    if made.weak is not None:
        v_weak = form.velocity(made.weak, noisy, t)
        velocity = v_weak + step.guidance_scale * (velocity - v_weak)
    return velocity, made.repeated


def euler_step(z: Array, velocity: Array, step: StepContext) -> Array:
    """z at the step's end."""
    return z - (step.t - step.t_next) * velocity


def run_steps(
    branches: Branches,
    form: Parameterization,
    context: SamplerContext,
    memory: Any,
    lq_latent: Array,
    z: Array,
    first: int | Array,
    last: int | Array,
    *,
    guided: bool,
) -> Array:
    """Do steps first to last - 1, all guided or none, in one loop; arguments as above."""

    def body(number: Array, z: Array) -> Array:
        step = context.at(number)
        given = branches, form, step, memory, lq_latent, z
        return euler_step(z, guided_velocity(*given, guided=guided)[0], step)

    return jax.lax.fori_loop(first, last, body, z)


def sample(
    network: VelocityFn | Branches,
    lq_latent: Array,
    noise: Array,
    settings: SamplerSettings,
    *,
    visual_tokens: Array | None = None,
    parameterization: Parameterization | None = None,
) -> Array:
    """Integrate from noise at t = 1 to a latent at t = 0.

    Args:
      network: (condition, noisy, t, visual_tokens, r) -> output, the denoiser itself; or its
        branches, such as `branches.Remembered`, which do less work for the same result.
      lq_latent: [B, h, w, C], the clean condition.
      noise: [B, h, w, C] standard normal draws.
      settings: steps and guidance.
      visual_tokens: [B, N, D] where the network has them.
      parameterization: what the network predicts; VOSR's own by default.

    Returns:
      The restored latent [B, h, w, C].
    """
    form = parameterization or Parameterization()
    branches = network if isinstance(network, Branches) else Plain(network)
    context = build_context(branches, settings)
    memory = None if visual_tokens is None else branches.remember(visual_tokens)
    z = noise
    for guided, first, last in settings.runs():
        given = branches, form, context, memory, lq_latent, z, first, last
        z = run_steps(*given, guided=guided)
    return form.to_latent(z, lq_latent)
