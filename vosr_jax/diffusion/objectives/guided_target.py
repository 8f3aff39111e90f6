"""The velocity that a student learns at r = t: v_weak + omega (v_full - v_weak).

After the official vosr.py (_teacher_target). Inside the guidance interval omega is the scale,
outside 1. Without a teacher the full branch is the data's own velocity and the weak branch the
student's.
"""

import jax
import jax.numpy as jnp
from jax import Array

from vosr_jax.diffusion.objectives.distillation import DistillationSettings, Sample, wide
from vosr_jax.diffusion.velocity_field import VelocityField


def guided_target(
    student: VelocityField,
    teacher: VelocityField | None,
    sample: Sample,
    settings: DistillationSettings,
) -> Array:
    """The guided velocity at (z_t, t), without gradient.

    Args:
      student: evaluated where there is no teacher.
      teacher: the frozen multi-step network, without r.
      sample: the batch.
      settings: its guidance; kind "none" and a scale of 1 need no weak branch.

    Returns:
      [B, h, w, C].
    """
    guidance, s = settings.guidance, sample
    if guidance.kind == "none" or guidance.scale == 1.0:
        if teacher is None:
            return s.velocity
        return jax.lax.stop_gradient(teacher(s.full, s.z_t, s.t, s.full_tokens, None))
    if teacher is not None:
        full, weak = teacher.branches(s.full, s.weak, s.z_t, s.t, s.full_tokens)
    else:
        nothing = None if s.full_tokens is None else jnp.zeros_like(s.full_tokens)
        full, weak = s.velocity, student(s.weak, s.z_t, s.t, nothing, s.t)
    start, end = guidance.interval
    omega = wide(jnp.where((s.t >= start) & (s.t <= end), guidance.scale, 1.0))
    return jax.lax.stop_gradient(weak + omega * (full - weak))
