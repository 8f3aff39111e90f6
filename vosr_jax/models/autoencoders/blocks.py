"""Layers that the autoencoders share, and those of Stable Diffusion's kind. NHWC."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from vosr_jax.models.attention.dispatch import Attention as AttentionFn
from vosr_jax.models.attention.dispatch import attention
from vosr_jax.models.layers import Conv, Linear

QUERY_CHUNK = 2048


class GroupNorm(nnx.Module):
    """Zero mean and unit variance over the image and a group of channels; eps 1e-6, float32."""

    def __init__(self, channels: int, groups: int):
        self.groups = groups
        self.weight = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: Array, statistics: tuple[Array, Array] | None = None) -> Array:
        """Normalize an image's features.

        Args:
          x: [B, H, W, C].
          statistics: mean and variance of the groups, [groups] each, if x is only a part of the
            image; x's own if None.
        """
        grouped = x.astype(jnp.float32).reshape(
            x.shape[0], -1, self.groups, x.shape[-1] // self.groups
        )
        if statistics is None and x.dtype != jnp.float32:
            # One pass: its error is far below the resolution of a short type.
            mean = grouped.mean((1, 3), keepdims=True)
            squares = jnp.square(grouped).mean((1, 3), keepdims=True)
            centred, variance = grouped - mean, jnp.maximum(squares - jnp.square(mean), 0)
        elif statistics is None:
            centred = grouped - grouped.mean((1, 3), keepdims=True)
            variance = jnp.square(centred).mean((1, 3), keepdims=True)
        else:
            centred = grouped - statistics[0][:, None]
            variance = statistics[1][:, None]
        normed = (centred * jax.lax.rsqrt(variance + 1e-6)).reshape(x.shape)
        return normed * self.weight[...] + self.bias[...]


class ResidualBlock(nnx.Module):
    """Norm, SiLU and convolution, twice; a 1x1 shortcut if the channels change.

    Args:
      inputs, outputs: channels.
      norm: makes a norm over so many channels.
      rngs: source of the initial kernels.
    """

    def __init__(self, inputs: int, outputs: int, norm: Callable[[int], Any], *, rngs: nnx.Rngs):
        self.norm1 = norm(inputs)
        self.conv1 = Conv(inputs, outputs, rngs=rngs)
        self.norm2 = norm(outputs)
        self.conv2 = Conv(outputs, outputs, rngs=rngs)
        self.shortcut = Linear(inputs, outputs, rngs=rngs) if inputs != outputs else None

    def __call__(self, x: Array) -> Array:
        hidden = self.conv1(jax.nn.silu(self.norm1(x)))
        hidden = self.conv2(jax.nn.silu(self.norm2(hidden)))
        return hidden + (x if self.shortcut is None else self.shortcut(x))


def spatial_attention(
    query: Array,
    key: Array,
    value: Array,
    chunk: int = QUERY_CHUNK,
    attention: AttentionFn = attention,
) -> Array:
    """One-head attention over all positions of an image, with the queries in chunks.

    Args:
      query, key, value: [B, H, W, C].
      chunk: queries at a time; memory grows with chunk * H * W instead of (H * W)^2.
      attention: of the tokens; the default is the default platform's on one device.

    Returns:
      [B, H, W, C].
    """
    batch, _, _, channels = query.shape
    q, k, v = (x.reshape(batch, -1, 1, channels) for x in (query, key, value))
    count = q.shape[1]
    if count <= 2 * chunk:
        return attention(q, k, v).reshape(query.shape)
    chunks = -(-count // chunk)
    q = jnp.pad(q, ((0, 0), (0, chunks * chunk - count), (0, 0), (0, 0)))
    q = q.reshape(batch, chunks, chunk, 1, channels).swapaxes(0, 1)
    out = jax.lax.map(lambda part: attention(part, k, v), q).swapaxes(0, 1)
    return out.reshape(batch, -1, channels)[:, :count].reshape(query.shape)


class Attention(nnx.Module):
    """Group norm and one-head attention over the whole image, added to the input."""

    def __init__(self, channels: int, groups: int, *, rngs: nnx.Rngs):
        self.norm = GroupNorm(channels, groups)
        self.query = Linear(channels, channels, rngs=rngs)
        self.key = Linear(channels, channels, rngs=rngs)
        self.value = Linear(channels, channels, rngs=rngs)
        self.out = Linear(channels, channels, rngs=rngs)
        self.attention_fn: AttentionFn = attention

    def __call__(self, x: Array) -> Array:
        projected = self.project(self.norm(x))
        return self.join(x, spatial_attention(*projected, attention=self.attention_fn))

    def project(self, normed: Array) -> tuple[Array, Array, Array]:
        """Compute query, key and value, [B, H, W, C] each."""
        return self.query(normed), self.key(normed), self.value(normed)

    def join(self, x: Array, attended: Array) -> Array:
        """Project the attention's result and add it to the input."""
        return x + self.out(attended)


class Middle(nnx.Module):
    """Residual block, attention (if any), residual block, at the latent's resolution."""

    def __init__(self, channels: int, groups: int, *, attend: bool, rngs: nnx.Rngs):
        norm = partial(GroupNorm, groups=groups)
        self.before = ResidualBlock(channels, channels, norm, rngs=rngs)
        self.attention = Attention(channels, groups, rngs=rngs) if attend else None
        self.after = ResidualBlock(channels, channels, norm, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = self.before(x)
        if self.attention is not None:
            x = self.attention(x)
        return self.after(x)


class Level(nnx.Module):
    """Residual blocks at one resolution, and the convolution that leads to the next.

    Args:
      inputs, outputs: channels.
      blocks: number of residual blocks.
      resampled: channels of that convolution; None leaves it out.
      norm: as in `ResidualBlock`.
      rngs: source of the initial kernels.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        blocks: int,
        resampled: int | None,
        norm: Callable[[int], Any],
        *,
        rngs: nnx.Rngs,
    ):
        widths = [inputs] + [outputs] * blocks
        self.blocks = nnx.List(
            ResidualBlock(a, b, norm, rngs=rngs)
            for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.resample = None if resampled is None else Conv(outputs, resampled, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        for block in self.blocks:
            x = block(x)
        return x


def halve(conv: Conv, x: Array) -> Array:
    """3x3 convolution with stride 2, zero-padded below and on the right only."""
    return conv(x, stride=2, padding=((0, 1), (0, 1)))


def double(x: Array) -> Array:
    """Repeat every pixel in a 2 x 2 square: [B, H, W, C] to [B, 2H, 2W, C]."""
    return x.repeat(2, axis=1).repeat(2, axis=2)
