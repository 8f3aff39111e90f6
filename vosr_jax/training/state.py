"""What a run carries from step to step."""

import dataclasses

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
    """

    step: Array
    parameters: dict[str, Array]
    ema: dict[str, Array]
    optimizer: optax.OptState


def new_state(parameters: dict[str, Array], optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step: EMA equal to the parameters."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        parameters=parameters,
        ema=jax.tree.map(jnp.copy, parameters),
        optimizer=optimizer.init(parameters),
    )
