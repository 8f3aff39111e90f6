"""Distillation of shortcut models (arXiv 2410.12557): one step equals two of half the length.

After the official vosr.py (loss_fm_distill_shortcut_improved), which also learns the guided
velocity at r = t, from a teacher or from the student itself.
"""

import dataclasses
from typing import Any

import jax
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
class ShortcutSettings(DistillationSettings):
    """Settings of the objective; it adds none to those of every distillation."""


def loss(
    velocity_fn: VelocityFn,
    batch: dict[str, Array],
    key: Array | None,
    settings: ShortcutSettings,
    *,
    teacher_fn: VelocityFn | None = None,
    draws: dict[str, Array] | None = None,
    endpoint_distance: EndpointDistance | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Squared errors of the velocity at r = t and of the average velocity, added.

    Evaluations: teacher, full and weak branch in one call; student, (t, t) and (t, r) in one
    call with gradient, then the two halves without. Arguments and results as in `rcgm.loss`.
    """
    sample = prepare(batch, key, draws, settings)
    student = as_denoiser(velocity_fn)
    frozen = student.frozen()
    teacher = None if teacher_fn is None else as_denoiser(teacher_fn).frozen()
    target = guided_target(frozen, teacher, sample, settings)
    context = student.precompute(sample.tokens)
    instant, average = instant_and_average(student, context, sample)
    goal = two_halves(frozen, jax.lax.stop_gradient(context), sample)
    rows = mean_square(instant - target)
    rows += settings.average_weight * mean_square(average - goal)
    return with_perceptual(rows, average, sample, batch, settings, endpoint_distance)


def two_halves(student: Denoiser, context: Any, sample: Sample) -> Array:
    """The mean of the average velocities over [s, t] and [r, s], with s the midpoint.

    Args:
      student: without gradient.
      context: `precompute` of the visual tokens that the student sees.
      sample: the batch.
    """
    t, r = sample.t, sample.r
    middle = (t + r) / 2
    first = student.velocity(sample.condition, sample.z_t, student.times(t, middle), context)
    z = sample.z_t - wide((t - r) / 2) * first
    second = student.velocity(sample.condition, z, student.times(middle, r), context)
    return (first + second) / 2
