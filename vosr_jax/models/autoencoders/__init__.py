"""Frozen autoencoders between images and latents, all with the same interface.

Each is an nnx.Module with `latent_channels`, `downscale` and `scaling_factor`, and the methods
`moments(image) -> (mean, std or None)` and `decode(latent) -> image`, both without the factor.
"""

from typing import Any, Protocol

from jax import Array
from jax.typing import DTypeLike

from vosr_jax.models.layers import activations_in


class Autoencoder(Protocol):
    """Interface of an autoencoder between images and latents."""

    latent_channels: int
    downscale: int
    scaling_factor: float

    def moments(self, image: Array) -> tuple[Array, Array | None]:
        """Encode [B, H, W, 3] in [-1, 1] to the posterior's mean and deviation [B, h, w, C]."""

    def decode(self, latent: Array) -> Array:
        """Decode [B, h, w, C] without the scaling factor to [B, H, W, 3] in [-1, 1]."""


def encode(autoencoder: Autoencoder, image: Array, noise: Array | None = None) -> Array:
    """Encode an image to the denoiser's latent, (mean + std * noise) * scaling_factor.

    Args:
      autoencoder: any of this package's.
      image: [B, H, W, 3] in [-1, 1], sides multiples of `downscale`.
      noise: [B, h, w, C] standard normal draws; None means the posterior's mode.

    Returns:
      [B, h, w, C] float32.
    """
    mean, std = autoencoder.moments(image)
    if noise is not None and std is not None:
        mean = mean + std * noise
    return mean * autoencoder.scaling_factor


def decode(autoencoder: Autoencoder, latent: Array) -> Array:
    """Decode a latent [B, h, w, C] to an image [B, H, W, 3], nominally in [-1, 1]."""
    return autoencoder.decode(latent / autoencoder.scaling_factor)


def with_activations(autoencoder: Any, dtype: DTypeLike) -> Any:
    """The same autoencoder with its products and the maps between its layers in a short type.

    The norms' statistics, sums of products, the latent and the image stay float32. docs/scaling.md
    lists the effects.
    """
    other = activations_in(autoencoder, dtype)
    for coder in (getattr(other, "encoder", None), getattr(other, "decoder", None)):
        for name in ("conv_out", "quant"):
            if (last := getattr(coder, name, None)) is not None:
                last.kept_dtype = None
    return other
