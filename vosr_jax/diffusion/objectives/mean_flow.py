"""MeanFlow (arXiv 2505.13447): the differential equation of the average velocity.

u = (1 / (t - r)) * integral of v over [r, t] implies, along the flow,

    u = v - (t - r) du/dt,    du/dt = (v, 1, 0) . (d/dz, d/dt, d/dr) u,

a Jacobian-vector product. The target carries no gradient. Rows are weighted by
1 / (|e|^2 + c)^p with their error e (its eq. 22). A share of the rows has r = t, where u = v. The
velocity v is the guided target, from a teacher or from the student itself. The official VOSR
code has no such objective.
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
    prepare,
    wide,
    with_perceptual,
)
from vosr_jax.diffusion.parameterization import VelocityFn
from vosr_jax.diffusion.timesteps import IntervalSettings, TimeSettings


@dataclasses.dataclass(frozen=True)
class MeanFlowSettings(DistillationSettings):
    """Settings of the objective; the defaults are the paper's.

    Attributes:
      interval: two lognormal draws; three quarters of the rows have r = t.
      power: p of the adaptive weight; 0 gives plain squares.
      offset: c of the adaptive weight.
    """

    interval: IntervalSettings = IntervalSettings(
        TimeSettings("lognorm", -0.4, 1.0), end="pair", instant_share=0.75
    )
    power: float = 1.0
    offset: float = 1e-3


def loss(
    velocity_fn: VelocityFn,
    batch: dict[str, Array],
    key: Array | None,
    settings: MeanFlowSettings,
    *,
    teacher_fn: VelocityFn | None = None,
    draws: dict[str, Array] | None = None,
    endpoint_distance: EndpointDistance | None = None,
) -> tuple[Array, dict[str, Array]]:
    """The adaptively weighted squared error of the average velocity.

    Evaluations: teacher, full and weak branch in one call; student, one call with its
    derivative. Arguments and results as in `rcgm.loss`.
    """
    sample = prepare(batch, key, draws, settings)
    student = as_denoiser(velocity_fn)
    teacher = None if teacher_fn is None else as_denoiser(teacher_fn).frozen()
    target = guided_target(student.frozen(), teacher, sample, settings)
    context = student.precompute(sample.tokens)
    average, change = average_and_change(student, target, context, sample)
    goal = jax.lax.stop_gradient(target - wide(sample.t - sample.r) * change)
    squares = jnp.sum((average - goal) ** 2, axis=(1, 2, 3))
    weight = jax.lax.stop_gradient((squares + settings.offset) ** -settings.power)
    return with_perceptual(weight * squares, average, sample, batch, settings, endpoint_distance)


def average_and_change(
    student: Denoiser, velocity: Array, context: Any, sample: Sample
) -> tuple[Array, Array]:
    """Compute u(z_t, t, r), and du/dt along the flow, from one evaluation and its derivative.

    Args:
      student: its attention must support forward-mode derivatives.
      velocity: dz/dt at (z_t, t).
      context: `precompute` of the visual tokens that the student sees.
      sample: the batch.
    """

    def average_at(z: Array, t: Array, r: Array) -> Array:
        return student.velocity(sample.condition, z, student.times(t, r), context)

    t, r = sample.t, sample.r
    tangents = (velocity, jnp.ones_like(t), jnp.zeros_like(r))
    return jax.jvp(average_at, (sample.z_t, t, r), tangents)
