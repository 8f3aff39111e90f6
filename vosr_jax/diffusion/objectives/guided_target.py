"""The velocity that a student learns at r = t: v_weak + omega (v_full - v_weak).

After the official vosr.py (_teacher_target). omega is the scale inside the guidance interval and 1
outside. Without a teacher the full branch is the data's velocity and the weak branch is the
student's.
"""

import jax
import jax.numpy as jnp
from jax import Array

from vosr_jax.diffusion.denoiser import Denoiser
from vosr_jax.diffusion.guidance import mix
from vosr_jax.diffusion.objectives.distillation import DistillationSettings, Sample, wide


def guided_target(
    student: Denoiser,
    teacher: Denoiser | None,
    sample: Sample,
    settings: DistillationSettings,
) -> Array:
    """The guided velocity at (z_t, t), without gradient.

    Args:
      student: evaluated if there is no teacher.
      teacher: the frozen multi-step network, without r.
      sample: the batch.
      settings: for the guidance; kind "none" and a scale of 1 need no weak branch.

    Returns:
      [B, h, w, C].
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
