"""One objective, one file, one signature.

loss(velocity_fn, batch, key, settings, *, teacher_fn=None, draws=None) -> (loss, metrics)
"""

from collections.abc import Callable

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


def loss_of(settings: Settings) -> Callable:
    """The objective that these settings are of."""
    losses: dict[type, Callable] = {
        flow_matching.FlowMatchingSettings: flow_matching.loss,
        rcgm.RCGMSettings: rcgm.loss,
        shortcut.ShortcutSettings: shortcut.loss,
        mean_flow.MeanFlowSettings: mean_flow.loss,
    }
    return losses[type(settings)]


def ends_at_a_picture(settings: Settings, key: Array, index: Array) -> Array:
    """Whether a row's prediction leads to a picture that can be judged: [B] bool.

    Flow matching's always does; a distillation's where the interval ends at r = 0.

    Args:
      settings: of the objective.
      key: the run's key.
      index: uint32 [B, 2].
    """
    if not isinstance(settings, DistillationSettings):
        return jnp.ones(len(index), bool)
    _, r = settings.interval.interval(settings.interval.draw(row_keys(key, index)))
    return r == 0
