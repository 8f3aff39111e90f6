"""Common parts of the one-step distillation objectives: settings, draws, sample, guided target.

The student learns the average velocity u(z_t, t, r) over [r, t], with z_r = z_t - (t - r) u.
At r = t it is the instantaneous velocity of the guided teacher.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from vosr_jax.diffusion.denoiser import Denoiser, split_rows, stack_rows
from vosr_jax.diffusion.guidance import (
    GuidanceSettings,
    full_condition,
    mix,
    training_condition,
    weak_condition,
)
from vosr_jax.diffusion.noise import row_keys
from vosr_jax.diffusion.objectives import flow_matching
from vosr_jax.diffusion.parameterization import Parameterization
from vosr_jax.diffusion.timesteps import IntervalSettings

EndpointDistance = Callable[[Array, dict[str, Array], Array], Array]


@dataclasses.dataclass(frozen=True)
class DistillationSettings:
    """Settings of every distillation objective.

    Attributes:
      interval: distribution of (t, r).
      guidance: how the conditions are made and the guided target is mixed.
      parameterization: what the flow transports and the network predicts.
      weak_strength: w of the weak condition, the same for all (official weak_cond_strength_aelq).
      average_weight: weight of the average velocity's error; the instantaneous velocity's error
        has weight 1 (official u_weight).
      perceptual_weight: 0 in VOSR. Above 0 it adds `endpoint_distance` of the endpoint that the
        average velocity leads to, over the rows whose interval ends at r = 0.
    """

    interval: IntervalSettings = IntervalSettings()
    guidance: GuidanceSettings = GuidanceSettings()
    parameterization: Parameterization = Parameterization()
    weak_strength: float = 0.1
    average_weight: float = 1.0
    perceptual_weight: float = 0.0


@dataclasses.dataclass(frozen=True)
class Sample:
    """One batch between data and noise.

    Attributes:
      t: [B].
      r: [B], at most t.
      z_t: [B, h, w, C].
      velocity: [B, h, w, C], from the data: eps - endpoint.
      condition: [B, h, w, C], the student's input: full, or weak for a share of the rows.
      tokens: [B, N, D] or None, the student's input.
      full: [B, h, w, C], the full condition of every row.
      full_tokens: [B, N, D] or None.
      weak: [B, h, w, C], the weak condition of every row; its tokens are zero.
    """

    t: Array
    r: Array
    z_t: Array
    velocity: Array
    condition: Array
    tokens: Array | None
    full: Array
    full_tokens: Array | None
    weak: Array


def draw(key: Array, batch: dict[str, Array], settings: DistillationSettings) -> dict[str, Array]:
    """Draw all random numbers of one batch, by the names that `prepare` reads.

    Args:
      key: the run's key.
      batch: "index" uint32 [B, 2] and "lq_latent" [B, h, w, C].
      settings: distributions.

    Returns:
      The draws of `IntervalSettings.draw` and `flow_matching.draw_conditions`.
    """
    rows = row_keys(key, batch["index"])
    return settings.interval.draw(rows) | flow_matching.draw_conditions(
        rows, batch["lq_latent"].shape[1:]
    )


def prepare(
    batch: dict[str, Array],
    key: Array | None,
    draws: dict[str, Array] | None,
    settings: DistillationSettings,
) -> Sample:
    """Build the noisy batch at its times, with all of its conditions.

    Args:
      batch: as in `flow_matching.loss`.
      key: the run's key; not used if draws are given.
      draws: the random numbers, as `draw` returns them, or None.
      settings: of the objective.
    """
    if draws is None:
        assert key is not None, "the run's key is needed where no draws are given"
        draws = draw(key, batch, settings)
    guidance, parameterization = settings.guidance, settings.parameterization
    lq_latent, tokens = batch["lq_latent"], batch.get("visual_tokens")
    strength = settings.weak_strength if guidance.kind == "restoration" else 0.0
    draws = draws | {"weak_strength": jnp.float32(strength)}
    condition, seen_tokens = training_condition(lq_latent, tokens, draws, guidance)
    t, r = settings.interval.interval(draws)
    weight, noise = t[:, None, None, None], draws["noise"]
    endpoint = parameterization.to_endpoint(batch["hr_latent"], lq_latent)
    z_t = (1 - weight) * endpoint + weight * noise
    sample = Sample(
        t=t,
        r=r,
        z_t=z_t,
        velocity=parameterization.velocity_target(endpoint, noise, z_t, t),
        condition=condition,
        tokens=seen_tokens,
        full=full_condition(
            lq_latent, draws["condition_strength_normal"], draws["condition_noise"], guidance
        ),
        full_tokens=tokens,
        weak=weak_condition(lq_latent, None, strength)[0],
    )
    return sample


def wide(times: Array) -> Array:
    """Reshape [B] times to [B, 1, 1, 1]."""
    return times[:, None, None, None]


def mean_square(error: Array) -> Array:
    """Mean square of each row, [B]."""
    return jnp.mean(error**2, axis=(1, 2, 3))


def instant_and_average(student: Denoiser, context: Any, sample: Sample) -> tuple[Array, Array]:
    """Compute (velocity at t, average velocity over [r, t]) in one call of twice the rows.

    Args:
      student: with gradient.
      context: `precompute` of the visual tokens that the student sees.
      sample: the batch.
    """
    condition, z_t = (stack_rows(x, x) for x in (sample.condition, sample.z_t))
    times = student.times(stack_rows(sample.t, sample.t), stack_rows(sample.t, sample.r))
    return split_rows(student.velocity(condition, z_t, times, context))


def with_perceptual(
    rows: Array,
    average: Array,
    sample: Sample,
    batch: dict[str, Array],
    settings: DistillationSettings,
    endpoint_distance: EndpointDistance | None,
) -> tuple[Array, dict[str, Array]]:
    """The loss and its metrics, with the perceptual term if its weight is not 0.

    Args:
      rows: [B], the objective's loss of every row.
      average: u(z_t, t, r).
      sample: from `prepare`.
      batch: of the objective.
      settings: of the objective.
      endpoint_distance: (latent, batch, wanted [B] bool) -> [B], 0 in rows that are not wanted;
        scaled so that the mean over B estimates the mean over all wanted rows.

    Returns:
      (loss [], metrics): "loss_rows" and "t" [B]; "perceptual_rows" if it has weight.
    """
    metrics = {"loss_rows": rows, "t": sample.t}
    total = jnp.mean(rows)
    if endpoint_distance is not None and settings.perceptual_weight:
        parameterization = settings.parameterization
        endpoint = parameterization.predicted_endpoint(average, sample.z_t, sample.t)
        latent = parameterization.to_latent(endpoint, batch["lq_latent"])
        metrics["perceptual_rows"] = endpoint_distance(latent, batch, sample.r == 0)
        total += settings.perceptual_weight * jnp.mean(metrics["perceptual_rows"])
    return total, jax.lax.stop_gradient(metrics)


def guided_target(
    student: Denoiser,
    teacher: Denoiser | None,
    sample: Sample,
    settings: DistillationSettings,
) -> Array:
    """The velocity that a student learns at r = t: v_weak + omega (v_full - v_weak).

    omega is the scale inside the guidance interval and 1 outside. Without a teacher the full branch
    is the data's velocity and the weak branch is the student's. (official: vosr.py,
    _teacher_target)

    Args:
      student: evaluated if there is no teacher.
      teacher: the frozen multi-step network, without r.
      sample: the batch.
      settings: for the guidance; kind "none" and a scale of 1 need no weak branch.

    Returns:
      [B, h, w, C], without gradient.
    """
    guidance, s = settings.guidance, sample
    if guidance.kind == "none" or guidance.scale == 1.0:
        if teacher is None:
            return s.velocity
        return jax.lax.stop_gradient(teacher(s.full, s.z_t, s.t, s.full_tokens, None))
    start, end = guidance.interval
    omega = wide(jnp.where((s.t >= start) & (s.t <= end), guidance.scale, 1.0))
    if teacher is not None:
        context = None if s.full_tokens is None else teacher.precompute(s.full_tokens)
        inputs = s.full, s.weak, s.z_t, teacher.times(s.t), context, teacher.null_context()
        return jax.lax.stop_gradient(teacher.guided(*inputs, omega))
    nothing = None if s.full_tokens is None else jnp.zeros_like(s.full_tokens)
    weak = student(s.weak, s.z_t, s.t, nothing, s.t)
    return jax.lax.stop_gradient(mix(s.velocity, weak, omega))
