"""A network as a velocity field, with what several evaluations on one batch can share.

An objective asks its student several times about the same pictures, and its teacher for a full
and a weak branch. `PlainField` is the plain formula, for any function; `NetworkField` does less
work for a LightningDiT.
"""

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from vosr_jax.diffusion.parameterization import Parameterization, VelocityFn
from vosr_jax.models.lightning_dit import LightningDiT, TokenMemory


@runtime_checkable
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


class NetworkField:
    """A denoiser as a field: keys and values of the visual tokens are made once for all calls,
    two times of a picture share them, and weak rows have no attention to tokens at all.

    Args:
      network: the denoiser.
      form: what its output stands for.
    """

    def __init__(self, network: LightningDiT, form: Parameterization):
        self._network, self._form = network, form

    def __call__(self, condition, z_t, t, visual_tokens=None, r=None) -> Array:
        output = self._network(condition, z_t, t, visual_tokens, r)
        return self._form.velocity(output, z_t, t)

    def remember(self, visual_tokens: Array | None) -> TokenMemory | None:
        """Every block's keys and values."""
        return self._network.token_memory(self._network.token_context(visual_tokens))

    def at(self, condition, z_t, t, memory, r) -> Array:
        """A call that makes no keys and values; z_t may have several rows a picture."""
        time = self._network.time_features(t, r)
        return self._form.velocity(self._network.denoise(condition, z_t, time, memory), z_t, t)

    def pair(self, condition, z_t, t, memory, r) -> tuple[Array, Array]:
        """One call of 2 B rows that reads the memory of B."""
        condition, z_t, t, r = stack_rows((condition, z_t, t, t), (condition, z_t, t, r))
        return split_rows(self.at(condition, z_t, t, memory, r))

    def branches(self, full, weak, z_t, t, visual_tokens) -> tuple[Array, Array]:
        """One call of 2 B rows, the weak ones with a constant for their attention to tokens."""
        network = self._network
        time, context = network.time_features(t), network.token_context(visual_tokens)
        constant = network.constant_memory()
        outputs = network.denoise_both(full, weak, z_t, time, context, constant)
        v_full, v_weak = (self._form.velocity(output, z_t, t) for output in outputs)
        return v_full, v_weak

    def frozen(self) -> "NetworkField":
        """Without gradient to the parameters, so that none of it is even prepared."""
        graph, state = nnx.split(self._network)
        return NetworkField(nnx.merge(graph, jax.lax.stop_gradient(state)), self._form)


def as_field(velocity_fn: VelocityFn | VelocityField) -> VelocityField:
    """The field itself, or a function as a plain one."""
    return velocity_fn if isinstance(velocity_fn, VelocityField) else PlainField(velocity_fn)


def stack_rows(first: Any, second: Any) -> Any:
    """[B, ...] twice to [2 B, ...], a row beside its twin: nothing moves between devices."""
    return jax.tree.map(lambda a, b: jnp.stack([a, b], 1).reshape(-1, *a.shape[1:]), first, second)


def split_rows(both: Array) -> tuple[Array, Array]:
    """The inverse of `stack_rows` for one array."""
    pairs = both.reshape(-1, 2, *both.shape[1:])
    return pairs[:, 0], pairs[:, 1]
