"""Training objectives, one per file, all with one signature.

loss(velocity_fn, batch, key, settings, *, teacher_fn=None, draws=None) -> (loss, metrics)
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from vosr_jax.diffusion.noise import row_keys
from vosr_jax.diffusion.objectives import flow_matching, mean_flow, rcgm, shortcut
from vosr_jax.diffusion.objectives.distillation import DistillationSettings

Settings = (
    flow_matching.FlowMatchingSettings
    | rcgm.RCGMSettings
    | shortcut.ShortcutSettings
    | mean_flow.MeanFlowSettings
)


def loss_of(settings: Settings) -> Callable[..., Any]:
    """The loss function that these settings belong to."""
    losses: dict[type, Callable[..., tuple[Array, dict[str, Array]]]] = {
        flow_matching.FlowMatchingSettings: flow_matching.loss,
        rcgm.RCGMSettings: rcgm.loss,
        shortcut.ShortcutSettings: shortcut.loss,
        mean_flow.MeanFlowSettings: mean_flow.loss,
    }
    return losses[type(settings)]


def ends_at_a_picture(settings: Settings, key: Array, index: Array) -> Array:
    """Mask [B] bool of the rows whose prediction gives an image that can be judged.

    With flow matching every row does. With distillation a row does if its interval ends at r = 0.

    Args:
      settings: of the objective.
      key: the run's key.
      index: uint32 [B, 2].
    """
    if not isinstance(settings, DistillationSettings):
        return jnp.ones(len(index), bool)
    _, r = settings.interval.interval(settings.interval.draw(row_keys(key, index)))
    return r == 0
