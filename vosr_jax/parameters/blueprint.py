"""A network's parameters as a flat dictionary, {"blocks.attn.qkv.kernel": array, ...}.

Sharding rules, optimizers and checkpoints work on names and arrays; the network's structure
stays here, and nothing of it is traced.
"""

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import jax
from flax import nnx

from vosr_jax.parameters.initial import shapes_only

Net = TypeVar("Net", bound=nnx.Module)
# What becomes of a parameter, given its dotted path, before a scanned block reads it.
Prepare = Callable[[str, jax.Array], jax.Array]


def flatten(module: nnx.Module) -> dict[str, jax.Array]:
    """All parameters by dotted path."""
    return {dotted(path): variable[...] for path, variable in nnx.to_flat_state(nnx.state(module))}


def dotted(path: tuple) -> str:
    """A parameter's path as its name."""
    return ".".join(str(part) for part in path)


def prepared(parameters: nnx.State, prepare: Prepare | None, parent: str) -> nnx.State:
    """One block's parameters as `prepare` gives them; None leaves them.

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
    """A network without its arrays: shapes by name, and how to put arrays in.

    Args:
      build: makes the network; it is only evaluated for shapes here.
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
        """Fresh parameters; run it under jit with out_shardings to make them in place."""
        return flatten(self._build())

    def count(self) -> int:
        """Number of parameters."""
        return sum(shape.size for shape in self.shapes.values())
