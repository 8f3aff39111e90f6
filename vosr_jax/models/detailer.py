"""Convolutions around the transformer, for latents that are pixels.

Where a token covers many pixels, a linear map to and from patches leaves a grid and spends
the tokens' width on fine grain. A stem of convolutions before the patches and a head of
convolutions after them, joined by a skip, see across patch borders and carry the grain.
Time scales and shifts their features, so that noise passes at small t and none at t = 1.
The official network has neither; it works on the latents of a learned autoencoder.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from vosr_jax.models.layers import Conv, Linear


class ResidualConv(nnx.Module):
    """gate * x + conv(silu(conv(silu(scale * x + shift)))), modulated by time.

    It starts as the identity: the second convolution and the modulation start at zero.
    """

    def __init__(self, width: int, time_width: int, *, rngs: nnx.Rngs):
        self.first = Conv(width, width, rngs=rngs)
        self.second = Conv(width, width, rngs=rngs, init="zeros")
        self.modulation = Linear(time_width, (3, width), rngs=rngs, init="zeros")

    def __call__(self, x: Array, modulation: Array, dtype: DTypeLike) -> Array:
        parts = modulation.astype(dtype)[:, :, None, None]
        scale, shift, gate = parts[:, 0], parts[:, 1], parts[:, 2]
        y = self.first(jax.nn.silu(x * (1 + scale) + shift), dtype)
        return x * (1 + gate) + self.second(jax.nn.silu(y), dtype)


class Detailer(nnx.Module):
    """Stem and head at the latent's resolution.

    Args:
      inputs: channels of the (condition, noisy) pair.
      outputs: channels of the prediction.
      width: channels of the features.
      blocks: residual blocks of the head.
      time_width: channels of the time embedding.
      rngs: source of the initial kernels; the last convolution starts at zero.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int,
        blocks: int,
        time_width: int,
        *,
        rngs: nnx.Rngs,
    ):
        self.embed = Conv(inputs, width, rngs=rngs)
        self.refine = ResidualConv(width, time_width, rngs=rngs)
        self.blocks = nnx.List([ResidualConv(width, time_width, rngs=rngs) for _ in range(blocks)])
        self.out = Conv(width, outputs, rngs=rngs, init="zeros")

    def modulations(self, time: Array, dtype: DTypeLike) -> list[Array]:
        """[B, 3, width] of the stem and of every block of the head; time [B, time_width]."""
        time = jax.nn.silu(time)
        return [block.modulation(time, dtype) for block in (self.refine, *self.blocks)]

    def stem(self, pair: Array, modulations: list[Array], dtype: DTypeLike) -> Array:
        """[B, h, w, inputs] to features [B, h, w, width]."""
        return self.refine(self.embed(pair, dtype), modulations[0], dtype)

    def head(
        self, features: Array, decoded: Array, modulations: list[Array], dtype: DTypeLike
    ) -> Array:
        """Stem features and the transformer's output, both [B, h, w, width], to [.., outputs]."""
        y = features + decoded
        for block, modulation in zip(self.blocks, modulations[1:], strict=True):
            y = block(y, modulation, dtype)
        return self.out(jax.nn.silu(y), dtype).astype(jnp.float32)
