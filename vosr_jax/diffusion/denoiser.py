"""Denoisers: the interface of a network that samplers and objectives call.

`DirectDenoiser` is the plain formula for any function. `CachedDenoiser` does less work for a
LightningDiT: keys and values of the visual tokens are computed once for all calls. The visual
tokens of the weak branch are all zero, so its cross-attention is a constant.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from vosr_jax.diffusion.guidance import mix
from vosr_jax.diffusion.parameterization import Parameterization, VelocityFn
from vosr_jax.models.lightning_dit.network import Context, LightningDiT


class Times(NamedTuple):
    """The times of a call.

    Attributes:
      t: [B], or [1] for all rows.
      features: the network's features of t and r, arrays with the same leading axis.
    """

    t: Array
    features: Any


@runtime_checkable
class Denoiser(Protocol):
    """A velocity field, with the work that several calls on one batch share.

    Calling it is the plain formula. `precompute`, `null_context` and `times` return the inputs of
    `velocity` and `guided`. All methods may be called under jit.
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
        """Compute the velocity [B, h, w, C]; with r, the average one over [r, t]."""
        ...

    def precompute(self, visual_tokens: Array | None) -> Any:
        """Compute the context of the tokens [B, N, D] that the calls below read."""
        ...

    def null_context(self) -> Any:
        """Compute the stand-in for all-zero visual tokens; it depends on the parameters only."""
        ...

    def times(self, t: Array, r: Array | None = None) -> Times:
        """Compute the features of the times [S] that the calls below read."""
        ...

    def velocity(
        self,
        condition: Array,
        z_t: Array,
        times: Times,
        context: Any = None,
        extent: Array | None = None,
    ) -> Array:
        """Compute the velocity [k B, h, w, C] from precomputed inputs.

        Args:
          condition, z_t: [k B, h, w, C]; the k rows of an image lie side by side.
          times: of k B times, or of one for all rows.
          context: `precompute` of B images' tokens.
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
          times, context, extent: as in `velocity`; the weak branch's tokens are zero.
          null_context: from the method of this name.
          scale: [] or [B, 1, 1, 1].
        """
        ...

    def frozen(self) -> "Denoiser":
        """The same denoiser without gradient."""
        ...


class DirectDenoiser:
    """A function as a denoiser; nothing is cached between calls.

    Args:
      network: (condition, z_t, t, visual_tokens, r) -> output [B, h, w, C].
      parameterization: the meaning of the output; by default it is the velocity.
    """

    def __init__(self, network: VelocityFn, parameterization: Parameterization | None = None):
        self.parameterization = parameterization or Parameterization()
        self._velocity_fn = self.parameterization.velocity_fn(network)

    def __call__(
        self,
        condition: Array,
        z_t: Array,
        t: Array,
        visual_tokens: Array | None = None,
        r: Array | None = None,
    ) -> Array:
        return self._velocity_fn(condition, z_t, t, visual_tokens, r)

    def precompute(self, visual_tokens: Array | None) -> Array | None:
        """The tokens themselves."""
        return visual_tokens

    def null_context(self) -> None:
        """None."""

    def times(self, t: Array, r: Array | None = None) -> Times:
        """The times themselves."""
        return Times(t, r)

    def velocity(
        self,
        condition: Array,
        z_t: Array,
        times: Times,
        context: Array | None = None,
        extent: Array | None = None,
    ) -> Array:
        """Compute it in one call.

        Raises:
          ValueError: an extent is given, which only a LightningDiT supports.
        """
        if extent is not None:
            raise ValueError("a plain network fills its whole rows; leave the extent out")
        rows = len(z_t)
        t, r = jax.tree.map(lambda x: jnp.broadcast_to(x, rows), tuple(times))
        if context is not None:
            context = jnp.repeat(context, rows // len(context), axis=0)
        return self(condition, z_t, t, context, r)

    def guided(
        self,
        condition: Array,
        weak_condition: Array,
        z_t: Array,
        times: Times,
        context: Array | None,
        null_context: None,
        scale: Array | float,
        extent: Array | None = None,
    ) -> Array:
        """Compute both branches in one call of 2 B rows."""
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
        """The same denoiser, whose outputs carry no gradient."""
        velocity_fn = self._velocity_fn
        frozen = DirectDenoiser(lambda *inputs: jax.lax.stop_gradient(velocity_fn(*inputs)))
        frozen.parameterization = self.parameterization
        return frozen


class CachedDenoiser:
    """A LightningDiT as a denoiser that computes repeated work once.

    Args:
      network: the denoising network.
      parameterization: the meaning of its output; VOSR's own by default.
      keep_kv: whether the context holds every block's keys and values, or only the tokens that
        they are computed from. Keeping them saves work from the second call on and takes
        2 * depth * N * width numbers per row.
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

    def __call__(
        self,
        condition: Array,
        z_t: Array,
        t: Array,
        visual_tokens: Array | None = None,
        r: Array | None = None,
    ) -> Array:
        output = self._network(condition, z_t, t, visual_tokens, r)
        return self.parameterization.velocity(output, z_t, t)

    def precompute(self, visual_tokens: Array | None) -> Any:
        """Every block's keys and values, or the tokens as the blocks see them."""
        tokens = self._network.token_context(visual_tokens)
        return self._network.cross_kv(tokens) if self._keep_kv else tokens

    def null_context(self) -> Array | None:
        """Every block's cross-attention for tokens that are zero."""
        return self._network.null_cross_attention()

    def times(self, t: Array, r: Array | None = None) -> Times:
        """The modulation of every block."""
        return Times(t, self._network.time_features(t, r))

    def velocity(
        self,
        condition: Array,
        z_t: Array,
        times: Times,
        context: Context | None = None,
        extent: Array | None = None,
    ) -> Array:
        """Compute it in one call that reads the context."""
        output = self._network.denoise(condition, z_t, times.features, context, extent)
        return self._velocity(output, z_t, times)

    def guided(
        self,
        condition: Array,
        weak_condition: Array,
        z_t: Array,
        times: Times,
        context: Context | None,
        null_context: Array | None,
        scale: Array | float,
        extent: Array | None = None,
    ) -> Array:
        """Compute one call of 2 B rows; the weak rows' cross-attention is a constant."""
        outputs = self._network.denoise_both(
            condition, weak_condition, z_t, times.features, context, null_context, extent
        )
        full, weak = (self._velocity(output, z_t, times) for output in outputs)
        return mix(full, weak, scale)

    def _velocity(self, output: Array, z_t: Array, times: Times) -> Array:
        t = jnp.broadcast_to(times.t, len(z_t))
        return self.parameterization.velocity(output, z_t, t)

    def frozen(self) -> "CachedDenoiser":
        """The same denoiser without gradient to the parameters, so none is computed."""
        graph, state = nnx.split(self._network)
        network = nnx.merge(graph, jax.lax.stop_gradient(state))
        return CachedDenoiser(network, self.parameterization, keep_kv=self._keep_kv)


def as_denoiser(
    network: VelocityFn | Denoiser, parameterization: Parameterization | None = None
) -> Denoiser:
    """Return a denoiser as it is; wrap a function as a `DirectDenoiser`."""
    if isinstance(network, Denoiser):
        return network
    return DirectDenoiser(network, parameterization)


def stack_rows(first: Array, second: Array) -> Array:
    """Interleave two [B, ...] to [2 B, ...]; twin rows lie together, so no data changes device."""
    return jnp.stack([first, second], 1).reshape(-1, *first.shape[1:])


def split_rows(both: Array) -> tuple[Array, Array]:
    """The inverse of `stack_rows`."""
    pairs = both.reshape(-1, 2, *both.shape[1:])
    return pairs[:, 0], pairs[:, 1]
