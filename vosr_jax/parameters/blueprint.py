"""A network's parameters as a flat dictionary, {"blocks.attn.qkv.kernel": array, ...}.

Sharding rules, optimizers and checkpoints work on names and arrays. The network's structure stays
here and is never traced.
"""

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import jax
from flax import nnx

from vosr_jax.parameters.initial import shapes_only

Net = TypeVar("Net", bound=nnx.Module)
# (dotted path, parameter) -> the parameter that a scanned block reads.
Prepare = Callable[[str, jax.Array], jax.Array]


def flatten(module: nnx.Module) -> dict[str, jax.Array]:
    """All parameters by dotted path."""
    return {dotted(path): variable[...] for path, variable in nnx.to_flat_state(nnx.state(module))}


def dotted(path: tuple) -> str:
    """A parameter's path as its name."""
    return ".".join(str(part) for part in path)


def prepared(parameters: nnx.State, prepare: Prepare | None, parent: str) -> nnx.State:
    """Apply `prepare` to one block's parameters; None leaves them.

    Args:
      parameters: of one block, a slice of the stack.
      prepare: see `Prepare`.
      parent: dotted path of the stack.
    """
    if prepare is None:
        return parameters
    flat = [
        (path, variable.replace(prepare(f"{parent}.{dotted(path)}", variable[...])))
        for path, variable in nnx.to_flat_state(parameters)
    ]
    return nnx.from_flat_state(flat)


class Blueprint(Generic[Net]):
    """A network without its arrays: shapes by name, and a way to fill them.

    Args:
      build: makes the network; here it is only evaluated for shapes.
    """

    def __init__(self, build: Callable[[], Net]):
        self._build = build
        with shapes_only():
            self._graph, state = nnx.split(nnx.eval_shape(build))
        self._variables = dict(nnx.to_flat_state(state))
        self.by_path = {path: v.get_value() for path, v in self._variables.items()}
        self.shapes = {dotted(path): shape for path, shape in self.by_path.items()}

    def merge(self, parameters: Mapping[str, Any]) -> Net:
        """The network with these arrays; usable inside jit.

        Raises:
          KeyError: a parameter is missing.
        """
        filled = [(p, v.replace(parameters[dotted(p)])) for p, v in self._variables.items()]
        return nnx.merge(self._graph, nnx.from_flat_state(filled))

    def abstract(self) -> Net:
        """The network with shapes in place of arrays."""
        return nnx.merge(self._graph, nnx.from_flat_state(self._variables.items()))

    def initialize(self) -> dict[str, jax.Array]:
        """Initialize new parameters; under jit with out_shardings they are created sharded."""
        return flatten(self._build())

    def count(self) -> int:
        """Number of parameters."""
        return sum(shape.size for shape in self.shapes.values())
