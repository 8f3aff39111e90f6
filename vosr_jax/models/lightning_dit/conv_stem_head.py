"""Convolutions around the transformer, for latents that are pixels.

If a token covers many pixels, a linear map to and from patches leaves a visible grid and spends
the tokens' width on fine grain. A stem of convolutions before the patches and a head of
convolutions after them, joined by a skip, see across patch borders and carry the grain. Time
scales and shifts their features, so noise passes at small t and none at t = 1.

If the latent is an image whose squares of pixels became channels, the head can end at the pixels
themselves. Convolutions that are equal at every pixel remove most of the weave that separate
channels would leave. `without_weave` removes the rest from the output.

The official network has neither; it works on the latents of a learned autoencoder.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from vosr_jax.models.layers import Conv, Linear, patchify, unpatchify
from vosr_jax.models.lightning_dit.settings import LightningDiTSettings

# Patterns that `without_weave` removes: (side of a square in latent pixels, squares on each side
# over which the mean is taken). The first is local; the second is faint and needs a wide mean.
_WEAVES = ((1, 1), (2, 6))


class ResidualConv(nnx.Module):
    """gate * x + conv(silu(conv(silu(scale * x + shift)))), modulated by time.

    It starts as the identity: the second convolution and the modulation start at zero.
    """

    def __init__(self, width: int, time_width: int, *, rngs: nnx.Rngs):
        self.first = Conv(width, width, rngs=rngs)
        self.second = Conv(width, width, rngs=rngs, init="zeros")
        self.modulation = Linear(time_width, (3, width), rngs=rngs, init="zeros")

    def __call__(
        self, x: Array, modulation: Array, dtype: DTypeLike, unpadded: Array | None = None
    ) -> Array:
        parts = modulation.astype(dtype)[:, :, None, None]
        scale, shift, gate = parts[:, 0], parts[:, 1], parts[:, 2]
        y = self.first(within(unpadded, jax.nn.silu(x * (1 + scale) + shift)), dtype)
        return x * (1 + gate) + self.second(within(unpadded, jax.nn.silu(y)), dtype)


class PixelHead(nnx.Module):
    """Head that maps the latent's features to image pixels and back to the latent's layout.

    All pixels of a square start with equal kernels, so there is no weave before training.

    Args:
      inputs: channels of the features.
      outputs: channels of the latent, scale^2 times those of a pixel.
      width: channels at the pixels.
      scale: pixels on the side of a square.
      rngs: source of the initial kernels; the last convolution starts at zero.
    """

    def __init__(self, inputs: int, outputs: int, width: int, scale: int, *, rngs: nnx.Rngs):
        self.scale = scale
        one = Conv(inputs, width, rngs=rngs)
        self.spread = Conv(inputs, width * scale**2, rngs=rngs, init="zeros")
        self.spread.kernel = nnx.Param(jnp.tile(one.kernel[...], (1, 1, 1, scale**2)))
        self.refine = Conv(width, width, rngs=rngs)
        self.out = Conv(width, outputs // scale**2, rngs=rngs, init="zeros")

    def __call__(self, features: Array, dtype: DTypeLike, unpadded: Array | None = None) -> Array:
        """[B, h, w, inputs] to [B, h, w, outputs]."""
        batch, height, width, _ = features.shape
        spread = self.spread(within(unpadded, features), dtype).reshape(batch, height * width, -1)
        pixels = unpatchify(spread, (height, width), self.scale)
        if unpadded is not None:
            unpadded = jnp.repeat(jnp.repeat(unpadded, self.scale, axis=1), self.scale, axis=2)
        pixels = pixels + self.refine(within(unpadded, jax.nn.silu(pixels)), dtype)
        pixels = self.out(within(unpadded, jax.nn.silu(pixels)), dtype)
        return patchify(pixels, self.scale).reshape(batch, height, width, -1)


class ConvStemHead(nnx.Module):
    """Stem and head at the latent's resolution.

    Args:
      inputs: channels of the (condition, noisy) pair.
      outputs: channels of the prediction.
      width: channels of the features.
      blocks: residual blocks of the head.
      stem_blocks: residual blocks of the stem.
      pixel_width: channels of the `PixelHead` that ends at the image's pixels; 0 has none.
      pixel_scale: pixels on the side of a latent pixel.
      remove_weave: apply `without_weave` to a `PixelHead`'s output.
      time_width: channels of the time embedding.
      rngs: source of the initial kernels; the last convolution starts at zero.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int,
        time_width: int,
        *,
        blocks: int,
        stem_blocks: int = 1,
        pixel_width: int = 0,
        pixel_scale: int = 1,
        remove_weave: bool = False,
        rngs: nnx.Rngs,
    ):
        self.remove_weave = remove_weave

        def residual(count: int) -> list[ResidualConv]:
            return [ResidualConv(width, time_width, rngs=rngs) for _ in range(count)]

        self.embed = Conv(inputs, width, rngs=rngs)
        self.refine = ResidualConv(width, time_width, rngs=rngs)
        self.blocks = nnx.List(residual(blocks))
        self.stem_blocks = nnx.List(residual(stem_blocks - 1))
        if pixel_width:
            self.out: Conv | PixelHead = PixelHead(
                width, outputs, pixel_width, pixel_scale, rngs=rngs
            )
        else:
            self.out = Conv(width, outputs, rngs=rngs, init="zeros")

    @classmethod
    def of(cls, settings: LightningDiTSettings, *, rngs: nnx.Rngs) -> "ConvStemHead":
        """Make the stem and head of a network; its detail_width is not 0."""
        return cls(
            2 * settings.latent_channels,
            settings.latent_channels,
            settings.detail_width,
            settings.width,
            blocks=settings.detail_blocks,
            stem_blocks=settings.detail_stem_blocks,
            pixel_width=settings.pixel_width,
            pixel_scale=settings.pixel_scale,
            remove_weave=settings.remove_weave,
            rngs=rngs,
        )

    def modulations(self, time: Array, dtype: DTypeLike) -> list[Array]:
        """Modulations [B, 3, width] of all blocks, stem then head, from time [B, time_width]."""
        time = jax.nn.silu(time)
        blocks = (self.refine, *self.stem_blocks, *self.blocks)
        return [block.modulation(time, dtype) for block in blocks]

    def stem(
        self, pair: Array, modulations: list[Array], dtype: DTypeLike, unpadded: Array | None = None
    ) -> Array:
        """Map [B, h, w, inputs] to features [B, h, w, width].

        unpadded: [B, h, w, 1], false outside the latent; None: all of it is latent.
        """
        y = self.embed(within(unpadded, pair), dtype)
        for block, modulation in zip((self.refine, *self.stem_blocks), modulations, strict=False):
            y = block(y, modulation, dtype, unpadded)
        return y

    def head(
        self,
        features: Array,
        decoded: Array,
        modulations: list[Array],
        dtype: DTypeLike,
        unpadded: Array | None = None,
    ) -> Array:
        """Map stem features and the transformer's output, both [B, h, w, width], to [.., outputs].

        unpadded: as in `stem`.
        """
        y = features + decoded
        of_head = modulations[1 + len(self.stem_blocks) :]
        for block, modulation in zip(self.blocks, of_head, strict=True):
            y = block(y, modulation, dtype, unpadded)
        y = jax.nn.silu(y)
        if not isinstance(self.out, PixelHead):
            return self.out(within(unpadded, y), dtype).astype(jnp.float32)
        output = self.out(y, dtype, unpadded).astype(jnp.float32)
        return without_weave(output, unpadded) if self.remove_weave else output


def without_weave(latent: Array, unpadded: Array | None = None) -> Array:
    """Remove the patterns that repeat from square to square, a latent pixel's and two's.

    The pattern at a square is the mean over the squares nearby, without its own mean and slope:
    a plain ramp repeats too, and stays. Images contain hardly anything else that repeats with just
    these periods; convolutions at the latent's resolution leave such a pattern.

    Args:
      latent: [B, h, w, C] float32: a rearranged image, C = pixels x 3 colours, colours last; h and
        w are even.
      unpadded: as in `ConvStemHead.stem`; padding begins at an even row and column.

    Returns:
      [B, h, w, C].
    """
    if unpadded is None:
        unpadded = jnp.ones((1, *latent.shape[1:3], 1), bool)
    for square, reach in _WEAVES:
        latent = latent - _repeated(latent, unpadded, square, reach)
    return latent


def _repeated(latent: Array, unpadded: Array, square: int, reach: int) -> Array:
    """The pattern of squares of this side, [B, h, w, C]."""
    batch, height, width, channels = latent.shape
    rows, columns, pixels = height // square, width // square, channels // 3
    split = latent.reshape(batch, rows, square, columns, square, pixels, 3)
    squares = split.swapaxes(2, 3).reshape(batch, rows, columns, -1, 3)
    ramps = _ramps(square, math.isqrt(pixels))
    inside = unpadded[:, ::square, ::square, 0]
    near = _nearby(inside[:, :, 0], reach), _nearby(inside[:, 0], reach)
    pattern = jnp.einsum("bij,bjkpc,blk->bilpc", near[0], squares, near[1], precision="highest")
    pattern -= jnp.einsum("pf,qf,bilqc->bilpc", ramps, ramps, pattern, precision="highest")
    split = pattern.reshape(batch, rows, columns, square, square, pixels, 3)
    return split.swapaxes(2, 3).reshape(latent.shape)


def _ramps(square: int, scale: int) -> Array:
    """A constant and the two slopes at a square's pixels, orthonormal: [pixels, 3]."""
    row, column, y, x = np.indices((square, square, scale, scale)).reshape(4, -1)
    ramps = np.stack([np.ones(len(row)), row * scale + y, column * scale + x], 1)
    return jnp.asarray(np.linalg.qr(ramps)[0], jnp.float32)


def _nearby(inside: Array, reach: int) -> Array:
    """Weights [B, n, n] of the mean over the squares near each of n, from [B, n] bool."""
    places = jnp.arange(inside.shape[1])
    near = (jnp.abs(places[:, None] - places) <= reach) & inside[:, None]
    return near / jnp.maximum(near.sum(-1, keepdims=True), 1)


def within(unpadded: Array | None, x: Array) -> Array:
    """Set x to zero outside the latent, as a zero-padded convolution sees beyond the edge."""
    return x if unpadded is None else x * unpadded
