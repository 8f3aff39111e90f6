"""A network as a velocity field, with what several evaluations on one batch can share.

An objective asks its student several times about the same pictures, and its teacher for a full
and a weak branch. `PlainField` is the plain formula, for any function.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from vosr_jax.diffusion.parameterization import VelocityFn


class VelocityField(Protocol):
    """(condition, z_t, t, visual_tokens, r) -> velocity, and what makes several calls cheaper."""

    def __call__(
        self,
        condition: Array,
        z_t: Array,
        t: Array,
        visual_tokens: Array | None = None,
        r: Array | None = None,
    ) -> Array:
        """The velocity [B, h, w, C]; the average one over [r, t] where there is an r."""
        ...

    def remember(self, visual_tokens: Array | None) -> Any:
        """What the calls below make of the visual tokens, once for all of them."""
        ...

    def at(self, condition: Array, z_t: Array, t: Array, memory: Any, r: Array | None) -> Array:
        """The same as a call."""
        ...

    def pair(
        self, condition: Array, z_t: Array, t: Array, memory: Any, r: Array
    ) -> tuple[Array, Array]:
        """(velocity at t, average velocity over [r, t]), in one evaluation of twice the rows."""
        ...

    def branches(
        self, full: Array, weak: Array, z_t: Array, t: Array, visual_tokens: Array | None
    ) -> tuple[Array, Array]:
        """(full condition with the tokens, weak one with zero tokens), in one evaluation."""
        ...

    def frozen(self) -> "VelocityField":
        """The same without gradient."""
        ...


class PlainField:
    """A function as a field; every call makes all of its rows anew.

    Args:
      velocity_fn: (condition, z_t, t, visual_tokens, r) -> velocity.
    """

    def __init__(self, velocity_fn: VelocityFn):
        self._velocity_fn = velocity_fn

    def __call__(self, condition, z_t, t, visual_tokens=None, r=None) -> Array:
        return self._velocity_fn(condition, z_t, t, visual_tokens, r)

    def remember(self, visual_tokens: Array | None) -> Array | None:
        """The tokens themselves."""
        return visual_tokens

    def at(self, condition, z_t, t, memory, r) -> Array:
        """A call."""
        return self(condition, z_t, t, memory, r)

    def pair(self, condition, z_t, t, memory, r) -> tuple[Array, Array]:
        """One call of 2 B rows."""
        rows = stack_rows((condition, z_t, t, memory, t), (condition, z_t, t, memory, r))
        return split_rows(self(*rows))

    def branches(self, full, weak, z_t, t, visual_tokens) -> tuple[Array, Array]:
        """One call of 2 B rows."""
        nothing = None if visual_tokens is None else jnp.zeros_like(visual_tokens)
        return split_rows(self(*stack_rows((full, z_t, t, visual_tokens), (weak, z_t, t, nothing))))

    def frozen(self) -> "PlainField":
        """Its outputs carry no gradient."""
        return PlainField(lambda *inputs: jax.lax.stop_gradient(self._velocity_fn(*inputs)))


def as_field(velocity_fn: VelocityFn | VelocityField) -> VelocityField:
    """The field itself, or a function as a plain one."""
    if isinstance(velocity_fn, Callable) and hasattr(velocity_fn, "remember"):
        return velocity_fn  # type: ignore[return-value]
    return PlainField(velocity_fn)


def stack_rows(first: Any, second: Any) -> Any:
    """[B, ...] twice to [2 B, ...], a row beside its twin: nothing moves between devices."""
    return jax.tree.map(lambda a, b: jnp.stack([a, b], 1).reshape(-1, *a.shape[1:]), first, second)


def split_rows(both: Array) -> tuple[Array, Array]:
    """The inverse of `stack_rows` for one array."""
    pairs = both.reshape(-1, 2, *both.shape[1:])
    return pairs[:, 0], pairs[:, 1]
