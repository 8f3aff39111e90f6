"""What a run carries from step to step, and whether a checkpoint holds the same kind."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from vosr_jax.errors import UserError


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


def as_tree(state: TrainState) -> dict[str, Any]:
    """The state by field, without fields that are None, such as an absent discriminator."""
    values = {name: getattr(state, name) for name in state.__dataclass_fields__}
    return {name: value for name, value in values.items() if value is not None}


def shapes_of(tree: Any) -> list[tuple[int, ...]]:
    """Shapes of a tree's arrays, sorted."""
    return sorted(tuple(leaf.shape) for leaf in jax.tree.leaves(tree))


def refuse_other_model(
    checkpoint: str,
    wanted: TrainState,
    parameters: Mapping[str, Any],
    optimizer: list[tuple[int, ...]],
    discriminator: Any,
) -> None:
    """Refuse a checkpoint whose state has other shapes than a run's.

    Args:
      checkpoint: its name, for messages.
      wanted: shapes of the run's state.
      parameters: shapes in the checkpoint, by dotted path.
      optimizer: all shapes of the checkpoint's optimizer state.
      discriminator: tree of its discriminator's shapes, empty if it has none.

    Raises:
      UserError: they differ; the message names what does.
    """
    for name, own in wanted.parameters.items():
        shape = tuple(parameters[name].shape) if name in parameters else None
        if shape != own.shape:
            raise UserError(
                f"{checkpoint} is of another model: {name} should be {own.shape} and is "
                f"{shape or 'missing'}; choose another workdir"
            )
    extra = sorted(parameters.keys() - wanted.parameters.keys())
    if extra:
        raise UserError(f"{checkpoint} is of another model: it has {extra[0]}")
    if shapes_of(discriminator) != shapes_of(wanted.discriminator):
        raise UserError(
            f"{checkpoint} is of another discriminator than objective.adversarial_weight, "
            "adversary and adversarial_width ask for; choose another workdir and set "
            "train.init_from"
        )
    if optimizer != shapes_of(wanted.optimizer):
        raise UserError(
            f"{checkpoint} is of another optimizer than optimizer.name's; choose another workdir"
        )
