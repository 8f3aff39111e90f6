"""A complete restoration model, and the compiled functions that run its parts."""

import dataclasses
from collections.abc import Callable
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from vosr_jax.diffusion.parameterization import Parameterization
from vosr_jax.diffusion.sampling import SamplerSettings
from vosr_jax.models.autoencoders import Autoencoder, decode, encode
from vosr_jax.models.dinov2 import DINOv2, visual_tokens
from vosr_jax.models.lightning_dit import LightningDiT
from vosr_jax.models.vgg import VGG16
from vosr_jax.restoration.denoising import denoise
from vosr_jax.restoration.precision import at_precision
from vosr_jax.restoration.tiled_autoencoder import decode_tiled, encode_tiled
from vosr_jax.restoration.tiling import TileGrid


@dataclasses.dataclass(frozen=True)
class RestorationModel:
    """Networks and the settings that they were made for.

    Attributes:
      name: what messages call it.
      denoiser: a LightningDiT.
      autoencoder: any of `models.autoencoders`.
      encoder: a DINOv2 or VGG16, or None for a denoiser without visual tokens.
      token_size: side of the picture that the encoder sees.
      token_block: 0-based block whose tokens are taken.
      sampler: the checkpoint's own steps and guidance.
      parameterization: what the denoiser predicts.
      colour_fix: the checkpoint's own, "adain", "wavelet" or "none".
      sample_posterior: whether lq's latent is a draw from the posterior or its mode.
      truncate: whether eight bits are made by cutting, as the official scripts do.
      precision: what the denoiser computes in, one of `precision.PRECISIONS`.
      notes: what a user should know about this checkpoint, one sentence each.
    """

    name: str
    denoiser: LightningDiT
    autoencoder: Autoencoder
    encoder: DINOv2 | VGG16 | None
    token_size: int = 448
    token_block: int | None = None
    sampler: SamplerSettings = SamplerSettings()
    parameterization: Parameterization = Parameterization()
    colour_fix: str = "none"
    sample_posterior: bool = True
    truncate: bool = False
    precision: str = "float32"
    notes: tuple[str, ...] = ()

    @cached_property
    def networks(self) -> tuple[LightningDiT, ...]:
        """The denoiser at its precision; where that is short, the one in float32 after it."""
        fast = at_precision(self.denoiser, self.precision)
        if self.precision == "float32":
            return (fast,)
        return fast, at_precision(self.denoiser, "float32")

    @property
    def multiple(self) -> int:
        """Sides of pictures must be multiples of this many pixels."""
        return self.autoencoder.downscale * self.denoiser.settings.patch_size

    def encode(self, image: ArrayLike, noise: ArrayLike | None, tile_size: int = 0) -> ArrayLike:
        """A picture to its latent.

        Args:
          image: [B, H, W, 3] in [-1, 1].
          noise: the posterior's draw [B, h, w, C], or None.
          tile_size: side of the encoder's tiles in pixels; 0, or a picture that fits into one,
            runs it at once. The result is the same.
        """
        if self._tiled(np.shape(image)[1:3], tile_size):
            draw = None if noise is None else np.asarray(noise)
            return encode_tiled(self.autoencoder, np.asarray(image), draw, tile_size)
        return _encode(*nnx.split(self.autoencoder), image, noise)

    def decode(self, latent: ArrayLike, tile_size: int = 0) -> ArrayLike:
        """A latent to [B, H, W, 3] in [-1, 1], clipped; tiles as in `encode`."""
        height, width = (side * self.autoencoder.downscale for side in np.shape(latent)[1:3])
        if self._tiled((height, width), tile_size):
            return decode_tiled(self.autoencoder, np.asarray(latent), tile_size)
        return _decode(*nnx.split(self.autoencoder), latent)

    def _tiled(self, size: tuple[int, int], tile_size: int) -> bool:
        # The pixel autoencoder only rearranges: it needs no more memory than the picture.
        return max(size) > tile_size > 0 and hasattr(self.autoencoder, "decoder_input")

    def visual_tokens(self, image: ArrayLike) -> Array | None:
        """[B, H, W, 3] in [-1, 1] to [B, N, D]; None where the model has no encoder."""
        if self.encoder is None:
            return None
        return _tokens(*nnx.split(self.encoder), image, self.token_size, self.token_block)

    def sample(
        self,
        lq_latent: ArrayLike,
        noise: ArrayLike,
        visual_tokens: ArrayLike | None,
        sampler: SamplerSettings,
        grid: TileGrid | None = None,
        tile_batch: int = 1,
        on_evaluation: Callable[[], None] | None = None,
    ) -> Array:
        """Noise to the restored latent.

        Args:
          lq_latent, noise: [B, h, w, C].
          visual_tokens: [B, N, D], or [B, tiles, N, D] with a grid.
          sampler: steps and guidance.
          grid: tiles for the denoiser.
          tile_batch: tiles in one call of the denoiser.
          on_evaluation: called after every call of the denoiser. Without it all are made by one
            run of a compiled program, with it each by one of the same program.

        Raises:
          UserError: the latent is not finite, in float32 either.
        """
        latents = lq_latent, noise, visual_tokens
        return denoise(self, *latents, sampler, grid, tile_batch, on_evaluation)


@partial(jax.jit, static_argnums=0)
def _encode(graph, state, image: Array, noise: Array | None) -> Array:
    return encode(nnx.merge(graph, state), image, noise)


@partial(jax.jit, static_argnums=0)
def _decode(graph, state, latent: Array) -> Array:
    return jnp.clip(decode(nnx.merge(graph, state), latent), -1, 1)


@partial(jax.jit, static_argnums=(0, 3, 4))
def _tokens(graph, state, image: Array, size: int, block: int | None) -> Array:
    return visual_tokens(nnx.merge(graph, state), image, size, block)


def on_device(model: RestorationModel, device: jax.Device) -> RestorationModel:
    """The model with its networks' values on a device."""

    def move(network):
        graph, state = nnx.split(network)
        return nnx.merge(graph, jax.device_put(state, device))

    moved = {"denoiser": move(model.denoiser), "autoencoder": move(model.autoencoder)}
    if model.encoder is not None:
        moved["encoder"] = move(model.encoder)
    return dataclasses.replace(model, **moved)


def channels_last(array: np.ndarray) -> np.ndarray:
    """[1, C, h, w], as official files keep latents, to [1, h, w, C]."""
    return np.transpose(np.asarray(array, np.float32), (0, 2, 3, 1))
