"""A network as a denoiser: what a sampler and an objective call.

`DirectDenoiser` is the plain formula for any function. `CachedDenoiser` does less work for a
LightningDiT: keys and values of the visual tokens are computed once for all calls, and the weak
branch, whose visual tokens are all zero, gets its cross-attention as a constant.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from vosr_jax.diffusion.guidance import mix
from vosr_jax.diffusion.parameterization import Parameterization, VelocityFn
from vosr_jax.models.lightning_dit.network import LightningDiT


class Times(NamedTuple):
    """The times of a call.

    Attributes:
      t: [B], or [1] for all rows.
      features: what the network makes of t and r, arrays with the same leading axis.
    """

    t: Array
    features: Any


@runtime_checkable
class Denoiser(Protocol):
    """A velocity field, and what several calls on one batch share.

    Calling it is the plain formula. `precompute`, `null_context` and `times` give what
    `velocity` and `guided` read; all methods may be called under jit.
    """

    parameterization: Parameterization

    def __call__(
        self,
        condition: Array,
        z_t: Array,
        t: Array,
        visual_tokens: Array | None = None,
        r: Array | None = None,
    ) -> Array:
        """Compute the velocity [B, h, w, C]; the average one over [r, t] where there is an r."""
        ...

    def precompute(self, visual_tokens: Array | None) -> Any:
        """Compute the context that the calls below read of the tokens [B, N, D]."""
        ...

    def null_context(self) -> Any:
        """Compute what stands for visual tokens that are all zero; of the parameters alone."""
        ...

    def times(self, t: Array, r: Array | None = None) -> Times:
        """Compute what the calls below read of the times [S]."""
        ...

    def velocity(
        self,
        condition: Array,
        z_t: Array,
        times: Times,
        context: Any = None,
        extent: Array | None = None,
    ) -> Array:
        """Compute the velocity [k B, h, w, C] from what was computed beforehand.

        Args:
          condition, z_t: [k B, h, w, C]; the k rows of a picture lie side by side.
          times: of k B times, or of one for all rows.
          context: `precompute` of B pictures' tokens.
          extent: [k B, 2], how much of each row is latent; see `LightningDiT.denoise`.
        """
        ...

    def guided(
        self,
        condition: Array,
        weak_condition: Array,
        z_t: Array,
        times: Times,
        context: Any,
        null_context: Any,
        scale: Array | float,
        extent: Array | None = None,
    ) -> Array:
        """Compute both branches in one call and mix them: v_weak + scale (v_full - v_weak).

        Args:
          condition, weak_condition, z_t: [B, h, w, C].
          times, context, extent: as of `velocity`; the weak branch's tokens are zero.
          null_context: of the method with this name.
          scale: [] or [B, 1, 1, 1].
        """
        ...

    def frozen(self) -> "Denoiser":
        """The same without gradient."""
        ...


class DirectDenoiser:
    """A function as a denoiser; every call computes all of its rows anew.

    Args:
      network: (condition, z_t, t, visual_tokens, r) -> output [B, h, w, C].
      parameterization: what the output stands for; by default it is the velocity.
    """

    def __init__(self, network: VelocityFn, parameterization: Parameterization | None = None):
        self.parameterization = parameterization or Parameterization()
        self._velocity_fn = self.parameterization.velocity_fn(network)

    def __call__(self, condition, z_t, t, visual_tokens=None, r=None) -> Array:
        return self._velocity_fn(condition, z_t, t, visual_tokens, r)

    def precompute(self, visual_tokens: Array | None) -> Array | None:
        """The tokens themselves."""
        return visual_tokens

    def null_context(self) -> None:
        """None."""

    def times(self, t: Array, r: Array | None = None) -> Times:
        """The times themselves."""
        return Times(t, r)

    def velocity(self, condition, z_t, times, context=None, extent=None) -> Array:
        """One call.

        Raises:
          ValueError: with an extent, which only a LightningDiT can heed.
        """
        if extent is not None:
            raise ValueError("a plain network fills its whole rows; leave the extent out")
        rows = len(z_t)
        t, r = jax.tree.map(lambda x: jnp.broadcast_to(x, rows), tuple(times))
        if context is not None:
            context = jnp.repeat(context, rows // len(context), axis=0)
        return self(condition, z_t, t, context, r)

    def guided(
        self, condition, weak_condition, z_t, times, context, null_context, scale, extent=None
    ) -> Array:
        """One call of 2 B rows."""
        rows = len(z_t)
        times = jax.tree.map(lambda x: jnp.broadcast_to(x, rows), times)
        tokens = () if context is None else (context, jnp.zeros_like(context))
        both = self.velocity(
            stack_rows(condition, weak_condition),
            stack_rows(z_t, z_t),
            jax.tree.map(lambda x: stack_rows(x, x), times),
            stack_rows(*tokens) if tokens else None,
            extent,
        )
        return mix(*split_rows(both), scale)

    def frozen(self) -> "DirectDenoiser":
        """Its outputs carry no gradient."""
        velocity_fn = self._velocity_fn
        frozen = DirectDenoiser(lambda *inputs: jax.lax.stop_gradient(velocity_fn(*inputs)))
        frozen.parameterization = self.parameterization
        return frozen


class CachedDenoiser:
    """A LightningDiT as a denoiser, with what repeats computed once.

    Args:
      network: the denoising network.
      parameterization: what its output stands for; VOSR's own by default.
      keep_kv: whether the context holds every block's keys and values, or only the tokens that
        they are made of. Kept, they save work from the second call on and take
        2 * depth * N * width numbers a row.
    """

    def __init__(
        self,
        network: LightningDiT,
        parameterization: Parameterization | None = None,
        *,
        keep_kv: bool = True,
    ):
        self.parameterization = parameterization or Parameterization()
        self._network, self._keep_kv = network, keep_kv

    def __call__(self, condition, z_t, t, visual_tokens=None, r=None) -> Array:
        output = self._network(condition, z_t, t, visual_tokens, r)
        return self.parameterization.velocity(output, z_t, t)

    def precompute(self, visual_tokens: Array | None) -> Any:
        """Every block's keys and values, or the tokens as the blocks see them."""
        tokens = self._network.token_context(visual_tokens)
        return self._network.cross_kv(tokens) if self._keep_kv else tokens

    def null_context(self) -> Array | None:
        """Every block's cross-attention where the tokens are zero."""
        return self._network.null_cross_attention()

    def times(self, t: Array, r: Array | None = None) -> Times:
        """The modulation of every block."""
        return Times(t, self._network.time_features(t, r))

    def velocity(self, condition, z_t, times, context=None, extent=None) -> Array:
        """One call that reads the context."""
        output = self._network.denoise(condition, z_t, times.features, context, extent)
        return self._velocity(output, z_t, times)

    def guided(
        self, condition, weak_condition, z_t, times, context, null_context, scale, extent=None
    ) -> Array:
        """One call of 2 B rows, the weak ones with a constant for their cross-attention."""
        outputs = self._network.denoise_both(
            condition, weak_condition, z_t, times.features, context, null_context, extent
        )
        full, weak = (self._velocity(output, z_t, times) for output in outputs)
        return mix(full, weak, scale)

    def _velocity(self, output: Array, z_t: Array, times: Times) -> Array:
        t = jnp.broadcast_to(times.t, len(z_t))
        return self.parameterization.velocity(output, z_t, t)

    def frozen(self) -> "CachedDenoiser":
        """Without gradient to the parameters, so that none of it is computed."""
        graph, state = nnx.split(self._network)
        network = nnx.merge(graph, jax.lax.stop_gradient(state))
        return CachedDenoiser(network, self.parameterization, keep_kv=self._keep_kv)


def as_denoiser(
    network: VelocityFn | Denoiser, parameterization: Parameterization | None = None
) -> Denoiser:
    """The denoiser itself, or a function as a direct one of that parameterization."""
    if isinstance(network, Denoiser):
        return network
    return DirectDenoiser(network, parameterization)


def stack_rows(first: Array, second: Array) -> Array:
    """[B, ...] twice to [2 B, ...], a row beside its twin: nothing moves between devices."""
    return jnp.stack([first, second], 1).reshape(-1, *first.shape[1:])


def split_rows(both: Array) -> tuple[Array, Array]:
    """The inverse of `stack_rows`."""
    pairs = both.reshape(-1, 2, *both.shape[1:])
    return pairs[:, 0], pairs[:, 1]
