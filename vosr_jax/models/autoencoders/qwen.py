"""The Qwen-Image autoencoder reduced to single images, as in VOSR's 1.4B models. NHWC."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from vosr_jax.models.attention.dispatch import Attention, attention
from vosr_jax.models.autoencoders.blocks import (
    Level,
    ResidualBlock,
    double,
    halve,
    spatial_attention,
)
from vosr_jax.models.autoencoders.sd import split_moments
from vosr_jax.models.layers import Conv, Linear

_LATENTS_MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
_LATENTS_STD = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)


@dataclass(frozen=True)
class QwenSettings:
    """Sizes of the autoencoder.

    Attributes:
      base_width: channels at the finest resolution.
      multipliers: of `base_width` at each resolution, the finest first.
      residual_blocks: number per resolution in the encoder; the decoder has one more.
      latent_channels: of the latent.
      latents_mean, latents_std: one per channel; the denoiser sees (latent - mean) / std.
      parts: which of "encoder" and "decoder" exist.
    """

    base_width: int = 96
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    residual_blocks: int = 2
    latent_channels: int = 16
    latents_mean: tuple[float, ...] = _LATENTS_MEAN
    latents_std: tuple[float, ...] = _LATENTS_STD
    parts: tuple[str, ...] = ("encoder", "decoder")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels at each resolution, the finest first."""
        return tuple(self.base_width * multiplier for multiplier in self.multipliers)


class UnitNorm(nnx.Module):
    """x / max(|x|, 1e-12) * sqrt(channels) * weight over the channels, in float32."""

    def __init__(self, channels: int):
        self.weight = nnx.Param(jnp.ones(channels))

    def __call__(self, x: Array) -> Array:
        x = x.astype(jnp.float32)
        length = jnp.sqrt(jnp.square(x).sum(-1, keepdims=True))
        return x / jnp.maximum(length, 1e-12) * (x.shape[-1] ** 0.5 * self.weight[...])


class Middle(nnx.Module):
    """Residual block, one-head attention added to its input, residual block."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.before = ResidualBlock(channels, channels, UnitNorm, rngs=rngs)
        self.norm = UnitNorm(channels)
        self.qkv = Linear(channels, (3, channels), rngs=rngs)
        self.out = Linear(channels, channels, rngs=rngs)
        self.after = ResidualBlock(channels, channels, UnitNorm, rngs=rngs)
        self.attention_fn: Attention = attention

    def __call__(self, x: Array) -> Array:
        x = self.before(x)
        projected = self.project(self.norm(x))
        x = self.join(x, spatial_attention(*projected, attention=self.attention_fn))
        return self.after(x)

    def project(self, normed: Array) -> tuple[Array, Array, Array]:
        """Compute query, key and value, [B, H, W, C] each."""
        qkv = self.qkv(normed)  # [B, H, W, 3, C]
        return qkv[..., 0, :], qkv[..., 1, :], qkv[..., 2, :]

    def join(self, x: Array, attended: Array) -> Array:
        """Project the attention's result and add it to the input."""
        return x + self.out(attended)


class Encoder(nnx.Module):
    """[B, H, W, 3] to the posterior's mean and log variance, [B, h, w, 2 * latent]."""

    def __init__(self, settings: QwenSettings, *, rngs: nnx.Rngs):
        widths, blocks = settings.widths, settings.residual_blocks
        doubled = 2 * settings.latent_channels
        self.conv_in = Conv(3, settings.base_width, rngs=rngs)
        self.levels = nnx.List(
            Level(
                widths[i - 1] if i else settings.base_width,
                width,
                blocks,
                width if i + 1 < len(widths) else None,
                UnitNorm,
                rngs=rngs,
            )
            for i, width in enumerate(widths)
        )
        self.middle = Middle(widths[-1], rngs=rngs)
        self.norm_out = UnitNorm(widths[-1])
        self.conv_out = Conv(widths[-1], doubled, rngs=rngs)
        self.quant = Linear(doubled, doubled, rngs=rngs)

    def __call__(self, image: Array) -> Array:
        x = self.conv_in(image)
        for level in self.levels:
            x = level(x)
            if level.resample is not None:
                x = halve(level.resample, x)
        return self.quant(self.conv_out(jax.nn.silu(self.norm_out(self.middle(x)))))


class Decoder(nnx.Module):
    """[B, h, w, latent] to [B, H, W, 3]; each upsampling halves the channels."""

    def __init__(self, settings: QwenSettings, *, rngs: nnx.Rngs):
        widths, blocks = settings.widths[::-1], settings.residual_blocks + 1
        latent = settings.latent_channels
        self.quant = Linear(latent, latent, rngs=rngs)
        self.conv_in = Conv(latent, widths[0], rngs=rngs)
        self.middle = Middle(widths[0], rngs=rngs)
        self.levels = nnx.List(
            Level(
                widths[i - 1] // 2 if i else widths[0],
                width,
                blocks,
                width // 2 if i + 1 < len(widths) else None,
                UnitNorm,
                rngs=rngs,
            )
            for i, width in enumerate(widths)
        )
        self.norm_out = UnitNorm(widths[-1])
        self.conv_out = Conv(widths[-1], 3, rngs=rngs)

    def __call__(self, latent: Array) -> Array:
        x = self.middle(self.conv_in(self.quant(latent)))
        for level in self.levels:
            x = level(x)
            if level.resample is not None:
                x = level.resample(double(x))
        return self.conv_out(jax.nn.silu(self.norm_out(x)))


class QwenAutoencoder(nnx.Module):
    """Encoder and decoder, each present if `settings.parts` names it.

    Its latents are already normalized per channel, so the scaling factor is 1.
    """

    def __init__(self, settings: QwenSettings, *, rngs: nnx.Rngs):
        self.settings = settings
        self.latent_channels = settings.latent_channels
        self.downscale = 2 ** (len(settings.multipliers) - 1)
        self.scaling_factor = 1.0
        self.encoder = Encoder(settings, rngs=rngs) if "encoder" in settings.parts else None
        self.decoder = Decoder(settings, rngs=rngs) if "decoder" in settings.parts else None

    def moments(self, image: Array) -> tuple[Array, Array]:
        """Compute the posterior of an image's normalized latent.

        Args:
          image: [B, H, W, 3] in [-1, 1], both sides multiples of `downscale`.

        Returns:
          (mean, standard deviation), each [B, H / downscale, W / downscale, latent_channels]
          float32, normalized by `latents_mean` and `latents_std`.

        Raises:
          ValueError: this autoencoder was made without its encoder.
        """
        if self.encoder is None:
            raise ValueError("this autoencoder has no encoder")
        return self.posterior(self.encoder(image.astype(jnp.float32)))

    def posterior(self, encoded: Array) -> tuple[Array, Array]:
        """Convert the encoder's output [B, h, w, 2 C] to normalized mean and deviation."""
        mean, std = split_moments(encoded)
        latents_mean, latents_std = self._normalization()
        return (mean - latents_mean) / latents_std, std / latents_std

    def decode(self, latent: Array) -> Array:
        """Decode a normalized latent to an image.

        Args:
          latent: [B, h, w, latent_channels].

        Returns:
          [B, h * downscale, w * downscale, 3] float32, clipped to [-1, 1].

        Raises:
          ValueError: this autoencoder was made without its decoder.
        """
        if self.decoder is None:
            raise ValueError("this autoencoder has no decoder")
        return jnp.clip(self.decoder(self.decoder_input(latent)), -1.0, 1.0)

    def decoder_input(self, latent: Array) -> Array:
        """Undo the latent's normalization for the decoder."""
        latents_mean, latents_std = self._normalization()
        return latent.astype(jnp.float32) * latents_std + latents_mean

    def _normalization(self) -> tuple[np.ndarray, np.ndarray]:
        settings = self.settings
        return (
            np.asarray(settings.latents_mean, np.float32),
            np.asarray(settings.latents_std, np.float32),
        )
