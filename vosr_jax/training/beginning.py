"""The state before the first step: new, or with the weights of another model."""

from collections.abc import Mapping
from typing import Any

import jax

from vosr_jax.errors import UserError
from vosr_jax.training.placing import place
from vosr_jax.training.state import TrainState
from vosr_jax.training.step import Method
from vosr_jax.weights.opening import open_denoiser
from vosr_jax.weights.resolve import resolve

_R_EMBEDDING = "r_embedding."


def weights_of(name_or_path: str) -> Mapping[str, Any]:
    """Weights to begin from, `train.init_from`: by dotted path, still where they lie.

    Raises:
      UserError: there is no such model, or it is damaged.
    """
    return open_denoiser(resolve(name_or_path, "train.init_from")).network.parameters


def begin(
    method: Method, abstract: TrainState, given: Mapping[str, Any] | None = None, source: str = ""
) -> TrainState:
    """A new state, made where it lies; no device ever holds more than its part.

    A student begins as its teacher: where the weights are a multi-step network's, the embedding
    of r keeps its own beginning, and the factor t - r leaves the teacher's velocity at r = t.

    Args:
      method: what is trained.
      abstract: shapes and shardings of the state.
      given: parameters and EMA by dotted path; None initializes them. The optimizer is new.
      source: where these come from, for messages.

    Raises:
      UserError: a given parameter is missing, unexpected or misshapen; it is named.
    """
    if given is None:
        return beginning(method, abstract, given=False)()
    names = _checked(given, source, abstract)
    where = _shardings(abstract).parameters
    own = {k: where[k] for k in where.keys() - names}
    parameters = place({k: given[k] for k in names}, {k: where[k] for k in names})
    if own:
        # Of the initialization only what is asked for gets computed.
        parameters |= jax.jit(
            lambda: {k: v for k, v in method.network.initialize().items() if k in own},
            out_shardings=own,
        )()
    return beginning(method, abstract, given=True)(parameters)


def beginning(method: Method, abstract: TrainState, *, given: bool) -> Any:
    """The program that makes a new state.

    Args:
      method: what is trained.
      abstract: shapes and shardings of the state.
      given: whether it takes placed parameters, whose memory it takes over, or makes them.
    """
    shardings = _shardings(abstract)
    if given:
        return jax.jit(method.new_state, out_shardings=shardings, donate_argnums=0)
    return jax.jit(method.new_state, out_shardings=shardings)


def _shardings(abstract: TrainState) -> TrainState:
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)


def _checked(given: Mapping[str, Any], source: str, abstract: TrainState) -> list[str]:
    """The names that are given, every one in its shape."""
    wanted = abstract.parameters
    optional = not any(name.startswith(_R_EMBEDDING) for name in given)
    names = []
    for name, shape in wanted.items():
        if name in given and given[name].shape == shape.shape:
            names.append(name)
        elif name in given or not (optional and name.startswith(_R_EMBEDDING)):
            raise UserError(
                f"{source}: {name} should be {shape.shape} and is "
                f"{given[name].shape if name in given else 'missing'}; it is of another model"
            )
    extra = sorted(given.keys() - wanted.keys())
    if extra:
        raise UserError(f"{source} has {extra[0]}, which this model has not")
    return names
