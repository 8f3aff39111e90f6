"""Discriminators: they score how real each neighbourhood of an image looks."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from vosr_jax.models.layers import Conv, Linear

_SLOPE = 0.2


class PatchDiscriminator(nnx.Module):
    """Sees pixels beside the enlarged input's, through convolutions and 2 x 2 means.

    A score per 4 x 4 pixels; its receptive field is 22 pixels.

    Args:
      width: channels at the image's own size; they double when the size halves.
      rngs: source of the initial kernels.
    """

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        sizes = (6, width, 2 * width, 4 * width)
        self.stages = nnx.List(
            [Conv(a, b, rngs=rngs) for a, b in zip(sizes, sizes[1:], strict=False)]
        )
        self.score = Conv(sizes[-1], 1, rngs=rngs)

    def __call__(self, image: Array, lq: Array, dtype: DTypeLike = jnp.float32) -> tuple[Array]:
        """Compute the scores; higher means more real.

        Args:
          image: [B, H, W, 3] in [-1, 1], sides multiples of 4.
          lq: the enlarged input, the same shape.
          dtype: of the convolutions.

        Returns:
          One array [B, H / 4, W / 4] float32.
        """
        y = jnp.concatenate([image, lq], -1)
        for number, convolution in enumerate(self.stages):
            y = jax.nn.leaky_relu(convolution(y, dtype), _SLOPE)
            if number < 2:
                y = _halved(y)
        return (self.score(y, dtype)[..., 0].astype(jnp.float32),)


class FeatureDiscriminator(nnx.Module):
    """Sees maps of a frozen network, each with a small head of its own.

    Args:
      channels: of each map.
      width: channels of every head's hidden layers.
      rngs: source of the initial kernels.
    """

    def __init__(self, channels: Sequence[int], width: int, *, rngs: nnx.Rngs):
        self.mix = nnx.List([Linear(n, width, rngs=rngs) for n in channels])
        self.stages = nnx.List([Conv(width, width, rngs=rngs) for _ in channels])
        self.score = nnx.List([Conv(width, 1, rngs=rngs) for _ in channels])

    def __call__(self, *maps: Array, dtype: DTypeLike = jnp.float32) -> tuple[Array, ...]:
        """Compute the scores; higher means more real.

        Args:
          *maps: [B, h, w, channels] each, with values of order 1.
          dtype: of the convolutions.

        Returns:
          One array [B, h, w] float32 for each map.
        """
        return tuple(self._scores(number, each, dtype) for number, each in enumerate(maps))

    def _scores(self, number: int, y: Array, dtype: DTypeLike) -> Array:
        y = jax.nn.leaky_relu(self.mix[number](y, dtype), _SLOPE)
        y = jax.nn.leaky_relu(self.stages[number](y, dtype), _SLOPE)
        return self.score[number](y, dtype)[..., 0].astype(jnp.float32)


def _halved(x: Array) -> Array:
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))
