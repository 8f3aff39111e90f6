"""Stable Diffusion's autoencoder (diffusers' AutoencoderKL) and VOSR's light decoder for it."""

from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from vosr_jax.models.autoencoders.blocks import GroupNorm, Level, Middle, double, halve
from vosr_jax.models.layers import Conv, Linear


@dataclass(frozen=True)
class SDCoderSettings:
    """Sizes of an encoder or a decoder.

    Attributes:
      channels: at each resolution, the finest first.
      layers_per_block: residual blocks per resolution in the encoder; the decoder has one more.
      groups: of every group norm.
      attend: whether the middle has attention.
      quant: whether a 1x1 convolution stands between this coder and the latent.
    """

    channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    groups: int = 32
    attend: bool = True
    quant: bool = True


@dataclass(frozen=True)
class SDSettings:
    """An encoder, a decoder and the latent between them.

    Attributes:
      encoder, decoder: their sizes; None if that part is left out.
      latent_channels: of the latent.
      scaling_factor: ratio of the denoiser's latent to the encoder's.
    """

    encoder: SDCoderSettings | None = field(default_factory=SDCoderSettings)
    decoder: SDCoderSettings | None = field(default_factory=SDCoderSettings)
    latent_channels: int = 4
    scaling_factor: float = 0.18215

    @classmethod
    def sd21(cls) -> "SDSettings":
        """Stable Diffusion 2.1's own encoder and decoder."""
        return cls()

    @classmethod
    def sd21_light(cls) -> "SDSettings":
        """Stable Diffusion 2.1's encoder with VOSR's light decoder (models/light_decoder.py)."""
        return cls(decoder=SDCoderSettings(channels=(64, 128, 256, 256), quant=False))


class Encoder(nnx.Module):
    """[B, H, W, 3] to the posterior's mean and log variance, [B, h, w, 2 * latent]."""

    def __init__(self, settings: SDCoderSettings, latent_channels: int, *, rngs: nnx.Rngs):
        channels, groups = settings.channels, settings.groups
        self.conv_in = Conv(3, channels[0], rngs=rngs)
        self.levels = nnx.List(
            Level(
                channels[max(i - 1, 0)],
                width,
                settings.layers_per_block,
                width if i + 1 < len(channels) else None,
                partial(GroupNorm, groups=groups),
                rngs=rngs,
            )
            for i, width in enumerate(channels)
        )
        self.middle = Middle(channels[-1], groups, attend=settings.attend, rngs=rngs)
        self.norm_out = GroupNorm(channels[-1], groups)
        self.conv_out = Conv(channels[-1], 2 * latent_channels, rngs=rngs)
        doubled = 2 * latent_channels
        self.quant = Linear(doubled, doubled, rngs=rngs) if settings.quant else None

    def __call__(self, image: Array) -> Array:
        x = self.conv_in(image)
        for level in self.levels:
            x = level(x)
            if level.resample is not None:
                x = halve(level.resample, x)
        x = self.conv_out(jax.nn.silu(self.norm_out(self.middle(x))))
        return x if self.quant is None else self.quant(x)


class Decoder(nnx.Module):
    """[B, h, w, latent] to [B, H, W, 3]."""

    def __init__(self, settings: SDCoderSettings, latent_channels: int, *, rngs: nnx.Rngs):
        channels, groups = settings.channels[::-1], settings.groups
        self.quant = Linear(latent_channels, latent_channels, rngs=rngs) if settings.quant else None
        self.conv_in = Conv(latent_channels, channels[0], rngs=rngs)
        self.middle = Middle(channels[0], groups, attend=settings.attend, rngs=rngs)
        self.levels = nnx.List(
            Level(
                channels[max(i - 1, 0)],
                width,
                settings.layers_per_block + 1,
                width if i + 1 < len(channels) else None,
                partial(GroupNorm, groups=groups),
                rngs=rngs,
            )
            for i, width in enumerate(channels)
        )
        self.norm_out = GroupNorm(channels[-1], groups)
        self.conv_out = Conv(channels[-1], 3, rngs=rngs)

    def __call__(self, latent: Array) -> Array:
        x = latent if self.quant is None else self.quant(latent)
        x = self.middle(self.conv_in(x))
        for level in self.levels:
            x = level(x)
            if level.resample is not None:
                x = level.resample(double(x))
        return self.conv_out(jax.nn.silu(self.norm_out(x)))


class SDAutoencoder(nnx.Module):
    """Encoder and decoder, each present if its settings are given."""

    def __init__(self, settings: SDSettings, *, rngs: nnx.Rngs):
        self.settings = settings
        self.latent_channels = settings.latent_channels
        self.scaling_factor = settings.scaling_factor
        part = settings.encoder or settings.decoder
        if part is None:
            raise ValueError("an autoencoder needs an encoder or a decoder")
        self.downscale = 2 ** (len(part.channels) - 1)
        coders = settings.encoder, settings.decoder
        latent = settings.latent_channels
        self.encoder = Encoder(coders[0], latent, rngs=rngs) if coders[0] else None
        self.decoder = Decoder(coders[1], latent, rngs=rngs) if coders[1] else None

    def moments(self, image: Array) -> tuple[Array, Array]:
        """Compute the posterior of an image's latent, without the scaling factor.

        Args:
          image: [B, H, W, 3] in [-1, 1], both sides multiples of `downscale`.

        Returns:
          (mean, standard deviation), each [B, H / downscale, W / downscale, latent_channels]
          float32; the log variance is clipped to [-30, 20] first, as diffusers does.

        Raises:
          ValueError: this autoencoder was made without its encoder.
        """
        if self.encoder is None:
            raise ValueError("this autoencoder has no encoder")
        return self.posterior(self.encoder(image.astype(jnp.float32)))

    def posterior(self, encoded: Array) -> tuple[Array, Array]:
        """Convert the encoder's output [B, h, w, 2 C] to mean and standard deviation."""
        return split_moments(encoded)

    def decoder_input(self, latent: Array) -> Array:
        """The decoder's input: here the latent itself."""
        return latent

    def decode(self, latent: Array) -> Array:
        """Decode a latent to an image.

        Args:
          latent: [B, h, w, latent_channels], without the scaling factor.

        Returns:
          [B, h * downscale, w * downscale, 3] float32, nominally in [-1, 1], not clipped.

        Raises:
          ValueError: this autoencoder was made without its decoder.
        """
        if self.decoder is None:
            raise ValueError("this autoencoder has no decoder")
        return self.decoder(latent.astype(jnp.float32))


def split_moments(x: Array) -> tuple[Array, Array]:
    """Convert [..., 2C] mean and log variance to mean and standard deviation, [..., C] each.

    A NumPy array gives NumPy arrays.
    """
    xp = np if isinstance(x, np.ndarray) else jnp
    mean, log_variance = xp.split(x, 2, axis=-1)
    return mean, xp.exp(0.5 * xp.clip(log_variance, -30.0, 20.0))
