"""The lossless pixel autoencoder: squares of pixels become channels."""

import dataclasses

from flax import nnx
from jax import Array

from vosr_jax.models.layers import patchify, unpatchify


@dataclasses.dataclass(frozen=True)
class SpaceToDepthSettings:
    """Attributes: downscale: side of a square in pixels; scaling_factor: latent over pixel."""

    downscale: int = 2
    scaling_factor: float = 1.0


class SpaceToDepth(nnx.Module):
    """Invertible map without parameters between [B, H, W, 3] and [B, H/d, W/d, 3 d d]."""

    def __init__(self, settings: SpaceToDepthSettings):
        self.downscale = settings.downscale
        self.latent_channels = 3 * settings.downscale**2
        self.scaling_factor = settings.scaling_factor

    def moments(self, image: Array) -> tuple[Array, None]:
        """Return the squares as channels, and no deviation, because the encoding is exact."""
        grid = (image.shape[1] // self.downscale, image.shape[2] // self.downscale)
        tokens = patchify(image, self.downscale)
        return tokens.reshape(image.shape[0], *grid, self.latent_channels), None

    def decode(self, latent: Array) -> Array:
        """The inverse of `moments`."""
        grid = (latent.shape[1], latent.shape[2])
        tokens = latent.reshape(latent.shape[0], -1, self.latent_channels)
        return unpatchify(tokens, grid, self.downscale)
