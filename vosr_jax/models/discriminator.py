"""A patch discriminator: scores how real each neighbourhood of an image looks, given its input."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from vosr_jax.models.layers import Conv

_SLOPE = 0.2


class PatchDiscriminator(nnx.Module):
    """Convolutions and 2 x 2 means; one score per 4 x 4 pixels, receptive field 22 pixels.

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

    def __call__(self, image: Array, lq: Array, dtype: DTypeLike = jnp.float32) -> Array:
        """Compute the scores; higher means more real.

        Args:
          image: [B, H, W, 3] in [-1, 1], sides multiples of 4.
          lq: the enlarged input, the same shape.
          dtype: of the convolutions.

        Returns:
          [B, H / 4, W / 4] float32.
        """
        y = jnp.concatenate([image, lq], -1)
        for number, convolution in enumerate(self.stages):
            y = jax.nn.leaky_relu(convolution(y, dtype), _SLOPE)
            if number < 2:
                y = _halved(y)
        return self.score(y, dtype)[..., 0].astype(jnp.float32)


def _halved(x: Array) -> Array:
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))
