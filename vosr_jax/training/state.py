"""What a run carries from step to step."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a checkpoint holds; randomness and data order follow from the step.

    Attributes:
      step: finished updates, int32 [].
      parameters: float32 master weights by dotted path.
      ema: their moving average, same names.
      optimizer: optax state.
      discriminator: the adversarial term's "parameters" and "optimizer", or None without one.
    """

    step: Array
    parameters: dict[str, Array]
    ema: dict[str, Array]
    optimizer: optax.OptState
    discriminator: dict[str, Any] | None = None


def new_state(
    parameters: dict[str, Array],
    optimizer: optax.GradientTransformation,
    discriminator: dict[str, Any] | None = None,
) -> TrainState:
    """The state before the first step: EMA equal to the parameters."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        parameters=parameters,
        ema=jax.tree.map(jnp.copy, parameters),
        optimizer=optimizer.init(parameters),
        discriminator=discriminator,
    )
