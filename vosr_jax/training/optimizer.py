"""AdamW as the official loop runs it, or Muon on the blocks' matrices; schedules; clipping."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers

from vosr_jax.config import OptimizerConfig


def learning_rate_schedule(
    kind: str, peak: float, warmup_steps: int, decay_steps: int
) -> optax.Schedule:
    """Learning rate by step: linear warm-up from 0, then constant, cosine or linear to 0.

    Args:
      kind: "constant", "cosine" or "linear".
      peak: the rate after the warm-up.
      warmup_steps: steps of the warm-up.
      decay_steps: the step at which cosine and linear reach 0, where they stay.
    """
    rest = max(decay_steps - warmup_steps, 1)
    after = {
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, rest),
        "linear": optax.linear_schedule(peak, 0.0, rest),
    }[kind]
    if not warmup_steps:
        return after
    # The first step of a warm-up already moves: (k + 1) / warmup_steps of the peak.
    warmup = optax.linear_schedule(peak / warmup_steps, peak, warmup_steps - 1 or 1)
    return optax.join_schedules([warmup, after], [warmup_steps])


_CONVOLUTION = re.compile(r"detailer\.(refine|(stem_)?blocks\.\d+)\.(first|second)\.kernel")


def schedule_of(config: OptimizerConfig, peak: float, total_steps: int) -> optax.Schedule:
    """The schedule of a config, over its decay_steps or else the run's length."""
    steps = config.decay_steps or total_steps
    return learning_rate_schedule(config.schedule, peak, config.warmup(steps), steps)


def _muon_axes(parameters: dict, convolutions: bool = False) -> dict:
    """The axes of each parameter that Muon orthogonalizes; None for those that AdamW updates."""

    def axes(name: str, value):
        if convolutions and _CONVOLUTION.fullmatch(name) and hasattr(value, "ndim"):
            return MuonDimensionNumbers((0, 1, 2), (3,))
        # Optax also passes the masked tree of AdamW's parameters, whose nodes have no axes.
        if not (name.startswith("blocks.") and name.endswith(".kernel") and hasattr(value, "ndim")):
            return None
        # [depth, inputs, *outputs]: depth is a batch axis, several output axes are one.
        return MuonDimensionNumbers((1,), tuple(range(2, value.ndim)))

    return {name: axes(name, value) for name, value in parameters.items()}


def make_optimizer(config: OptimizerConfig, total_steps: int) -> optax.GradientTransformation:
    """Make the optimizer: clip by global norm, then update; every parameter has weight decay.

    With Muon, the parameters that are left to AdamW use Nesterov momentum too.

    Args:
      config: names, rates and schedule.
      total_steps: length of the schedule, unless config.decay_steps is set.

    Returns:
      A transformation over a flat dictionary of parameters.
    """

    def schedule(peak: float) -> optax.Schedule:
        return schedule_of(config, peak, total_steps)

    if config.name == "adamw":
        update = optax.adamw(
            schedule(config.learning_rate),
            b1=config.beta1,
            b2=config.beta2,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
        )
    else:
        update = optax.contrib.muon(
            schedule(config.muon_learning_rate),
            adam_learning_rate=schedule(config.learning_rate),
            adam_b1=config.beta1,
            adam_b2=config.beta2,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            adam_weight_decay=config.weight_decay,
            muon_weight_dimension_numbers=partial(
                _muon_axes, convolutions=config.muon_convolutions
            ),
        )
    return optax.chain(clip_by_global_norm(config.max_grad_norm), update)


def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """Scale by limit / (norm + 1e-6) if that is below 1, as torch's clip_grad_norm_ does.

    A limit of 0 disables clipping.
    """
    if not limit:
        return optax.identity()

    def update(gradients, state, parameters=None):
        del parameters
        scale = jnp.minimum(1.0, limit / (optax.global_norm(gradients) + 1e-6))
        return jax.tree.map(lambda g: g * scale, gradients), state

    return optax.GradientTransformation(lambda parameters: optax.EmptyState(), update)
