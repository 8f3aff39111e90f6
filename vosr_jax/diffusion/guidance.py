"""Full and weak conditions, and the guidance between them.

Restoration guidance: the weak branch sees a faint image (w * lq latent, visual tokens zero).
Classifier-free guidance, the ablation: the weak branch sees nothing. Without guidance there is no
weak branch.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array


@dataclasses.dataclass(frozen=True)
class GuidanceSettings:
    """Settings of the conditions in training and of their mixture in sampling.

    Attributes:
      kind: "restoration", "classifier_free" (weak condition zero) or "none".
      drop_rate: share of training samples that get the weak condition (official cfg_ratio).
      weak_strength_range: training draws w uniformly from it, once per batch.
      condition_strength: (mean, deviation) of the normal n in a = sigmoid(n); the full
        training condition is a * lq + sqrt(1 - a^2) * noise.
      scale: s in v_weak + s (v_full - v_weak) when sampling.
      interval: (t_start, t_end); guidance acts while t_start <= t <= t_end.
    """

    kind: Literal["restoration", "classifier_free", "none"] = "restoration"
    drop_rate: float = 0.1
    weak_strength_range: tuple[float, float] = (0.05, 0.25)
    condition_strength: tuple[float, float] = (5.0, 1.0)
    scale: float = -0.5
    interval: tuple[float, float] = (0.0, 1.0)

    @property
    def weak_strength(self) -> float:
        """The middle of the training range, as in the official sampler; 0 for other kinds."""
        return sum(self.weak_strength_range) / 2 if self.kind == "restoration" else 0.0


def full_condition(
    lq_latent: Array, strength_normal: Array, noise: Array, settings: GuidanceSettings
) -> Array:
    """a * lq + sqrt(1 - a^2) * noise with a = sigmoid(n * deviation + mean), one n per sample.

    Args:
      lq_latent: [B, h, w, C].
      strength_normal: [B] standard normal draws n.
      noise: [B, h, w, C] standard normal draws.
      settings: GuidanceSettings.

    Returns:
      [B, h, w, C].
    """
    mean, deviation = settings.condition_strength
    a = jax.nn.sigmoid(strength_normal * deviation + mean)[:, None, None, None]
    return a * lq_latent + jnp.sqrt(1 - a**2) * noise


def mix(full: Array, weak: Array, scale: Array | float) -> Array:
    """The guided velocity: weak + scale (full - weak).

    Args:
      full, weak: velocities [B, h, w, C] of the branches.
      scale: 1 is the full branch alone, 0 the weak one.
    """
    return weak + scale * (full - weak)


def weak_condition(
    lq_latent: Array, visual_tokens: Array | None, weak_strength: Array | float
) -> tuple[Array, Array | None]:
    """(w * lq latent, visual tokens zero)."""
    tokens = None if visual_tokens is None else jnp.zeros_like(visual_tokens)
    return weak_strength * lq_latent, tokens


def training_condition(
    lq_latent: Array,
    visual_tokens: Array | None,
    draws: dict[str, Array],
    settings: GuidanceSettings,
) -> tuple[Array, Array | None]:
    """The full condition, replaced by the weak one in rows that the dropout draw selects.

    Args:
      lq_latent: [B, h, w, C].
      visual_tokens: [B, N, D] or None.
      draws: condition_strength_normal [B], condition_noise [B, h, w, C],
        condition_dropout_uniform [B] and weak_strength [].
      settings: GuidanceSettings.

    Returns:
      (condition [B, h, w, C], visual tokens [B, N, D] or None).
    """
    strength, noise = draws["condition_strength_normal"], draws["condition_noise"]
    full = full_condition(lq_latent, strength, noise, settings)
    if settings.kind == "none":
        return full, visual_tokens
    seen = draws["weak_strength"] if settings.kind == "restoration" else 0.0
    weak, weak_tokens = weak_condition(lq_latent, visual_tokens, seen)
    dropped = draws["condition_dropout_uniform"] < settings.drop_rate
    condition = jnp.where(dropped[:, None, None, None], weak, full)
    if visual_tokens is None or weak_tokens is None:
        return condition, None
    return condition, jnp.where(dropped[:, None, None], weak_tokens, visual_tokens)
