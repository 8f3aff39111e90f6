"""One objective, one file, one signature.

loss(velocity_fn, batch, key, settings, *, teacher_fn=None, draws=None) -> (loss, metrics)
"""

from collections.abc import Callable

from vosr_jax.diffusion.objectives import flow_matching, mean_flow, rcgm, shortcut

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
