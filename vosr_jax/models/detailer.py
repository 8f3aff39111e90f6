"""Convolutions around the transformer, for latents that are pixels.

Where a token covers many pixels, a linear map to and from patches leaves a grid and spends
the tokens' width on fine grain. A stem of convolutions before the patches and a head of
convolutions after them, joined by a skip, see across patch borders and carry the grain.
The official network has neither; it works on the latents of a learned autoencoder.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from vosr_jax.models.layers import Conv


class ResidualConv(nnx.Module):
    """x + conv(silu(conv(silu(x)))), the second convolution starting at zero."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.first = Conv(width, width, rngs=rngs)
        self.second = Conv(width, width, rngs=rngs, init="zeros")

    def __call__(self, x: Array, dtype: DTypeLike) -> Array:
        y = self.first(jax.nn.silu(x), dtype)
        return x + self.second(jax.nn.silu(y), dtype)


class Detailer(nnx.Module):
    """Stem and head at the latent's resolution.

    Args:
      inputs: channels of the (condition, noisy) pair.
      outputs: channels of the prediction.
      width: channels of the features.
      blocks: residual blocks of the head.
      rngs: source of the initial kernels; the last convolution starts at zero.
    """

    def __init__(self, inputs: int, outputs: int, width: int, blocks: int, *, rngs: nnx.Rngs):
        self.embed = Conv(inputs, width, rngs=rngs)
        self.refine = ResidualConv(width, rngs=rngs)
        self.blocks = nnx.List([ResidualConv(width, rngs=rngs) for _ in range(blocks)])
        self.out = Conv(width, outputs, rngs=rngs, init="zeros")

    def stem(self, pair: Array, dtype: DTypeLike) -> Array:
        """[B, h, w, inputs] to features [B, h, w, width]."""
        return self.refine(self.embed(pair, dtype), dtype)

    def head(self, features: Array, decoded: Array, dtype: DTypeLike) -> Array:
        """Stem features and the transformer's output, both [B, h, w, width], to [.., outputs]."""
        y = features + decoded
        for block in self.blocks:
            y = block(y, dtype)
        return self.out(jax.nn.silu(y), dtype).astype(jnp.float32)
