"""Recursive consistency: VOSR's default one-step distillation (official vosr.py, rcgm).

The average velocity over [r, t] must equal the target's small step from t to t - delta followed by
the student's own n steps from there to r. With d = t - r and S the sum of those steps' moves,

    e = (d u - S) / delta - v    (u - v where t - r <= delta: the small step reaches r),

and u is trained towards u - clip(e, -1, 1), without gradient through e.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from vosr_jax.diffusion.denoiser import Denoiser, as_denoiser
from vosr_jax.diffusion.objectives.distillation import (
    DistillationSettings,
    EndpointDistance,
    Sample,
    guided_target,
    instant_and_average,
    mean_square,
    prepare,
    wide,
    with_perceptual,
)
from vosr_jax.diffusion.parameterization import VelocityFn


@dataclasses.dataclass(frozen=True)
class RCGMSettings(DistillationSettings):
    """Settings of the objective.

    Attributes:
      delta_t: length of the target's step.
      n_steps: number of the student's steps after it.
    """

    delta_t: float = 0.01
    n_steps: int = 2


def loss(
    velocity_fn: VelocityFn,
    batch: dict[str, Array],
    key: Array | None,
    settings: RCGMSettings,
    *,
    teacher_fn: VelocityFn | None = None,
    draws: dict[str, Array] | None = None,
    endpoint_distance: EndpointDistance | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Squared errors of the velocity at r = t and of the average velocity, added.

    Evaluations: teacher, full and weak branch in one call; student, (t, t) and (t, r) in one
    call with gradient, then n_steps calls without.

    Args:
      velocity_fn: the student, (condition, z_t, t, visual_tokens, r) -> average velocity.
      batch: as in `flow_matching.loss`.
      key: the run's key; not used if draws are given.
      settings: of the objective.
      teacher_fn: the multi-step network; without it the student distils itself.
      draws: the random numbers, as `distillation.draw` returns them.
      endpoint_distance: as in `distillation.with_perceptual`.

    Returns:
      (loss [], metrics): "loss_rows" and "t" [B]; "perceptual_rows" if it has weight.
    """
    sample = prepare(batch, key, draws, settings)
    student = as_denoiser(velocity_fn)
    frozen = student.frozen()
    teacher = None if teacher_fn is None else as_denoiser(teacher_fn).frozen()
    target = guided_target(frozen, teacher, sample, settings)
    context = student.precompute(sample.tokens)
    instant, average = instant_and_average(student, context, sample)
    still = jax.lax.stop_gradient((average, context))
    goal = consistent_average(frozen, *still, target, sample, settings)
    rows = mean_square(instant - target)
    rows += settings.average_weight * mean_square(average - goal)
    return with_perceptual(rows, average, sample, batch, settings, endpoint_distance)


def consistent_average(
    student: Denoiser,
    average: Array,
    context: Any,
    target: Array,
    sample: Sample,
    settings: RCGMSettings,
) -> Array:
    """The target of the average velocity, u - clip(e, -1, 1).

    Args:
      student: without gradient.
      average: u(z_t, t, r), without gradient.
      context: `precompute` of the visual tokens that the student sees.
      target: the guided velocity at (z_t, t).
      sample: the batch.
      settings: delta_t and n_steps.
    """
    t, r, delta, n = sample.t, sample.r, settings.delta_t, settings.n_steps
    start = jnp.maximum(t - delta, r)
    z = sample.z_t - wide(t - start) * target

    def step(carry: tuple[Array, Array], share: Array) -> tuple[tuple[Array, Array], None]:
        z, moved = carry
        here, there = (start * (1 - s) + r * s for s in share)
        times = student.times(here, there)
        move = wide(here - there) * student.velocity(sample.condition, z, times, context)
        return (z - move, moved + move), None

    shares = jnp.arange(n + 1, dtype=jnp.float32) / n
    ends = jnp.stack([shares[:-1], shares[1:]], 1)
    (_, moved), _ = jax.lax.scan(step, (z, jnp.zeros_like(z)), ends)
    length = wide(jnp.maximum(t - r, 1e-6))
    near = wide(t < r + delta + 1e-6)
    error = jnp.where(near, average - moved / length, (length * average - moved) / delta) - target
    return average - jnp.clip(error, -1, 1)
