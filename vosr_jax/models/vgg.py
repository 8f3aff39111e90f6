"""VGG16's convolutions (arXiv 1409.1556), for LPIPS and as a small visual encoder."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from vosr_jax.models.layers import matmul_precision

CHANNELS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
# Last convolution of each stage; pooling follows it.
STAGE_ENDS = (1, 3, 6, 9, 12)


def convolve(
    layer: Mapping[str, Any],
    x: Array,
    stride: int = 1,
    padding: int = 1,
    dtype: DTypeLike = jnp.float32,
) -> Array:
    """Convolution with bias and ReLU.

    Args:
      layer: "kernel" [h, w, in, out] and "bias" [out].
      x: [B, H, W, in].
      stride, padding: the same for both sides.
      dtype: of the products; the result is float32.
    """
    y = jax.lax.conv_general_dilated(
        x.astype(dtype),
        layer["kernel"].astype(dtype),
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=matmul_precision(dtype),
    )
    return jax.nn.relu(y.astype(jnp.float32) + layer["bias"])


def max_pool(x: Array, window: int = 2) -> Array:
    """Maximum over window x window with stride 2, without padding."""
    return jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, window, window, 1), (1, 2, 2, 1), "VALID"
    )


def vgg16_maps(
    layers: Sequence[Mapping[str, Any]], x: Array, dtype: DTypeLike = jnp.float32
) -> list[Array]:
    """Outputs of the given convolutions, after their ReLUs.

    Args:
      layers: the first convolutions, as `convolve` takes them.
      x: [B, H, W, 3], ImageNet-normalized.
      dtype: of the products.
    """
    maps: list[Array] = []
    for number, layer in enumerate(layers):
        if number - 1 in STAGE_ENDS:
            x = max_pool(x)
        x = convolve(layer, x, dtype=dtype)
        maps.append(x)
    return maps


@dataclasses.dataclass(frozen=True)
class VGG16Settings:
    """Size of the network.

    Attributes:
      convolutions: number of them, 1 to 13; 10 end with conv4_3, 13 with conv5_3.
    """

    convolutions: int = len(CHANNELS)

    @property
    def width(self) -> int:
        """Channels of the last convolution."""
        return CHANNELS[self.convolutions - 1]

    @property
    def patch_size(self) -> int:
        """Image pixels on a token's side."""
        return 2 ** sum(end < self.convolutions - 1 for end in STAGE_ENDS)


class VGG16(nnx.Module):
    """VGG16's first convolutions as a visual encoder: one token per pixel of the last map.

    Args:
      settings: number of convolutions.
      rngs: source of the initial weights, He-normal.
    """

    def __init__(self, settings: VGG16Settings, *, rngs: nnx.Rngs):
        self.settings = settings
        self.prepare = None
        channels = (3, *CHANNELS[: settings.convolutions])
        self.convolutions = nnx.List(
            nnx.Conv(
                inputs,
                outputs,
                (3, 3),
                kernel_init=nnx.initializers.he_normal(),
                rngs=rngs,
            )
            for inputs, outputs in zip(channels[:-1], channels[1:], strict=True)
        )

    def __call__(
        self, image: Array, block: int | None = None, *, dtype: DTypeLike = jnp.float32
    ) -> Array:
        """Compute the tokens of an image.

        Args:
          image: [B, H, W, 3], ImageNet-normalized.
          block: 0-based convolution whose map is returned; None: the last.
          dtype: of the products.

        Returns:
          [B, h * w, channels] float32, rows first.

        Raises:
          ValueError: the convolution does not exist.
        """
        last = self.settings.convolutions - 1
        block = last if block is None else block
        if not 0 <= block <= last:
            raise ValueError(f"convolution {block} of {last + 1}")
        layers = [nnx.to_pure_dict(nnx.state(layer)) for layer in self.convolutions[: block + 1]]
        seen = vgg16_maps(layers, image, dtype)[-1]
        return seen.reshape(seen.shape[0], -1, seen.shape[-1])
