"""A network's full and weak branch, as a sampler asks for them.

The plain form calls any network anew each time. The remembered form takes a LightningDiT apart:
visual keys and values are made once for all steps, the modulation of all steps at once, and the
weak branch, whose visual tokens are all zero, gets its cross-attention as a constant.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array

from vosr_jax.diffusion.parameterization import VelocityFn
from vosr_jax.models.lightning_dit import LightningDiT


class Evaluation(NamedTuple):
    """What one question to the network gives.

    Attributes:
      full: [B, h, w, C] output of the full branch.
      weak: of the weak branch, or None where it was not asked for.
      repeated: [B] bool, rows that were computed a second time in higher precision.
    """

    full: Array
    weak: Array | None
    repeated: Array


@runtime_checkable
class Branches(Protocol):
    """How a sampler asks a network; all methods may be called under jit."""

    def remember(self, visual_tokens: Array | None) -> Any:
        """What `evaluate` needs of the tokens [B, N, D]: arrays that start with any axes."""

    def constants(self) -> Any:
        """What the weak branch needs and only depends on the parameters."""

    def times(self, t: Array, r: Array | None) -> Any:
        """What `evaluate` needs of the times [S]: arrays that start with an axis of S."""

    def evaluate(
        self,
        condition: Array,
        weak_condition: Array | None,
        noisy: Array,
        time: Any,
        memory: Any,
        constants: Any,
        extent: Array | None = None,
    ) -> Evaluation:
        """Ask at one time: `time` is one row of `times`; the latents are [B, h, w, C].

        extent: [B, 2], how much of each row is latent; see `LightningDiT.denoise`.
        """


class Plain:
    """The formula as it stands, for any network.

    Args:
      network: (condition, noisy, t, visual_tokens, r) -> output.
    """

    def __init__(self, network: VelocityFn):
        self._network = network

    def remember(self, visual_tokens: Array | None) -> Array | None:
        """The tokens themselves."""
        return visual_tokens

    def constants(self) -> None:
        """None."""

    def times(self, t: Array, r: Array | None) -> tuple[Array, Array | None]:
        """The times themselves."""
        return t, r

    def evaluate(
        self, condition, weak_condition, noisy, time, memory, constants, extent=None
    ) -> Evaluation:
        """One call of the network; with a weak condition, both branches in it.

        Raises:
          ValueError: with an extent, which only a LightningDiT can heed.
        """
        if extent is not None:
            raise ValueError("a plain network fills its whole rows; leave the extent out")
        tokens, rows = memory, len(condition)
        if weak_condition is not None:
            condition = jnp.concatenate([condition, weak_condition])
            noisy = jnp.concatenate([noisy, noisy])
            if tokens is not None:
                tokens = jnp.concatenate([tokens, jnp.zeros_like(tokens)])
        t, r = jax.tree.map(lambda x: jnp.broadcast_to(x, len(condition)), time)
        output = self._network(condition, noisy, t, tokens, r)
        weak = None if weak_condition is None else output[rows:]
        return Evaluation(output[:rows], weak, jnp.zeros(rows, bool))


class Remembered:
    """The same for a LightningDiT, with what repeats computed once.

    Args:
      denoiser: the network.
      keep_keys: whether every block's keys and values are kept, or only the tokens that they
        are made of. Kept, they save work and take 2 * depth * N * width numbers a row.
    """

    def __init__(self, denoiser: LightningDiT, *, keep_keys: bool = True):
        self._denoiser = denoiser
        self._keep_keys = keep_keys

    def remember(self, visual_tokens: Array | None) -> Any:
        """Keys and values of all blocks, or the tokens as the blocks see them."""
        context = self._denoiser.token_context(visual_tokens)
        if not self._keep_keys:
            return context
        return self._denoiser.token_memory(context)

    def constants(self) -> Array | None:
        """The weak branch's cross-attention in every block."""
        return self._denoiser.constant_memory()

    def times(self, t: Array, r: Array | None) -> Any:
        """Modulation by every one of the times."""
        return self._denoiser.time_features(t, r)

    def evaluate(
        self, condition, weak_condition, noisy, time, memory, constants, extent=None
    ) -> Evaluation:
        """One call of the network; with a weak condition, both branches in it."""
        repeated = jnp.zeros(len(condition), bool)
        if weak_condition is None:
            full = self._denoiser.denoise(condition, noisy, time, memory, extent)
            return Evaluation(full, None, repeated)
        full, weak = self._denoiser.denoise_both(
            condition, weak_condition, noisy, time, memory, constants, extent
        )
        return Evaluation(full, weak, repeated)
