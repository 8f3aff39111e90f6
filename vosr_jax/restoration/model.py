"""A complete restoration model, and the compiled functions that run its parts."""

import dataclasses
import warnings
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from vosr_jax.diffusion.parameterization import Parameterization
from vosr_jax.diffusion.sampler import SamplerSettings
from vosr_jax.models.autoencoders import Autoencoder, decode, encode
from vosr_jax.models.dinov2.network import DINOv2, preprocess
from vosr_jax.models.layers import products_in
from vosr_jax.models.lightning_dit.network import LightningDiT
from vosr_jax.models.vgg import VGG16
from vosr_jax.restoration.denoiser_programs import at_precision
from vosr_jax.restoration.denoising import Latents, denoise
from vosr_jax.restoration.tiled.autoencoder import decode_tiled, encode_tiled
from vosr_jax.restoration.tiled.latent import TileGrid

Network = TypeVar("Network")


@dataclasses.dataclass(frozen=True)
class RestorationModel:
    """Networks and the settings that they were made for.

    Attributes:
      name: the model's name in messages.
      denoiser: a LightningDiT.
      autoencoder: any of `models.autoencoders`.
      encoder: a DINOv2 or VGG16, or None for a denoiser without visual tokens.
      token_size: side of the image that the encoder sees.
      token_block: 0-based block whose tokens are taken.
      sampler: the checkpoint's own steps and guidance.
      guided: whether it was trained for guidance; a one-step model has learned its own.
      parameterization: what the denoiser predicts.
      colour_fix: the checkpoint's own, "adain", "wavelet" or "none".
      sample_posterior: whether lq's latent is a draw from the posterior, not its mode.
      truncate: whether 8-bit values are truncated, not rounded, as in the official scripts.
      precision: of the denoiser, one of `settings.PRECISIONS`.
      autoencoder_precision: of the autoencoder's products, one of
        `settings.AUTOENCODER_PRECISIONS`.
      notes: sentences that a user should know about this checkpoint.
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
    sample_posterior: bool = False
    guided: bool = True
    truncate: bool = False
    precision: str = "float32"
    autoencoder_precision: str = "float32"
    notes: tuple[str, ...] = ()

    @cached_property
    def networks(self) -> tuple[LightningDiT, ...]:
        """The denoiser at its precision; below float32, followed by the float32 one."""
        fast = at_precision(self.denoiser, self.precision)
        if self.precision == "float32":
            return (fast,)
        return fast, at_precision(self.denoiser, "float32")

    @cached_property
    def short_autoencoder(self) -> Autoencoder:
        """The autoencoder at its precision."""
        if self.autoencoder_precision == "float32":
            return self.autoencoder
        return products_in(self.autoencoder, self.autoencoder_precision)

    @property
    def posterior(self) -> str:
        """Kind of the image's latent: "mode" or "sample"."""
        return "sample" if self.sample_posterior else "mode"

    @property
    def one_step(self) -> bool:
        """Whether the model was made to go from noise to image in one step."""
        return self.sampler.r_input or (not self.guided and self.sampler.steps == 1)

    @property
    def multiple(self) -> int:
        """Number of pixels that must divide the image's sides."""
        return self.autoencoder.downscale * self.denoiser.settings.patch_size

    def encode(self, image: ArrayLike, noise: ArrayLike | None, tile_size: int = 0) -> ArrayLike:
        """Encode an image to its latent.

        Args:
          image: [B, H, W, 3] in [-1, 1].
          noise: the posterior's draw [B, h, w, C], or None.
          tile_size: side of the encoder's tiles in pixels; 0 runs the whole image at once, with a
            program for its size. The result is the same up to rounding.
        """
        if not self._coders:
            return encode(self.autoencoder, cast(Array, np.asarray(image)))
        if tile_size > 0:
            draw = None if noise is None else np.asarray(noise)
            return self._coded(lambda net: encode_tiled(net, np.asarray(image), draw, tile_size))
        return self._coded(lambda net: _encode(*nnx.split(net), image, noise))

    def decode(self, latent: ArrayLike, tile_size: int = 0) -> ArrayLike:
        """Decode a latent to [B, H, W, 3] in [-1, 1], clipped; tiles as in `encode`."""
        if not self._coders:
            return np.clip(decode(self.autoencoder, cast(Array, np.asarray(latent))), -1, 1)
        if tile_size > 0:
            return self._coded(lambda net: decode_tiled(net, np.asarray(latent), tile_size))
        return self._coded(lambda net: _decode(*nnx.split(net), latent))

    def _coded(self, code: Callable[[Autoencoder], ArrayLike]) -> ArrayLike:
        """Run the autoencoder; run it again in float32 if the result is not finite."""
        made = code(self.short_autoencoder)
        if self.autoencoder_precision == "float32":
            return made
        # In NumPy: JAX would compile a program for each size.
        made = np.asarray(made)
        if np.isfinite(made).all():
            return made
        warnings.warn(
            f"the autoencoder ran again in float32: {self.autoencoder_precision} gave no finite "
            "value",
            stacklevel=3,
        )
        return code(self.autoencoder)

    @property
    def _coders(self) -> bool:
        # The pixel autoencoder only rearranges; NumPy does that without a program per size.
        return hasattr(self.autoencoder, "decoder_input")

    def visual_tokens(self, image: ArrayLike) -> Array | None:
        """Encode [B, H, W, 3] in [-1, 1] to [B, N, D]; None if the model has no encoder."""
        if self.encoder is None:
            return None
        # Resized in a separate program, so the encoder is compiled once for all sizes.
        seen = _seen(jnp.asarray(image), self.token_size)
        return _tokens(*nnx.split(self.encoder), seen, self.token_block)

    def sample(
        self,
        lq_latent: ArrayLike,
        noise: ArrayLike,
        visual_tokens: ArrayLike | None,
        sampler: SamplerSettings,
        grid: TileGrid | None = None,
        tile_batch: int = 1,
        on_evaluation: Callable[[], None] | None = None,
    ) -> np.ndarray:
        """Sample the restored latent from noise, with programs for its own size.

        Args:
          lq_latent, noise: [B, h, w, C].
          visual_tokens: [B, N, D], or [B, tiles, N, D] with a grid.
          sampler: steps and guidance.
          grid: tiles for the denoiser.
          tile_batch: tiles in one call of the denoiser.
          on_evaluation: called after every call of the denoiser.

        Returns:
          [B, h, w, C] float32.

        Raises:
          UserError: the latent is not finite, even in float32.
        """
        latents = Latents(lq_latent, noise, visual_tokens, grid)
        return denoise(self, [latents], sampler, tile_batch, on_evaluation)[0]


@partial(jax.jit, static_argnums=0)
def _encode(
    graph: nnx.GraphDef[Autoencoder],
    state: nnx.State[Any, Any],
    image: Array,
    noise: Array | None,
) -> Array:
    return encode(nnx.merge(graph, state), image, noise)


@partial(jax.jit, static_argnums=0)
def _decode(graph: nnx.GraphDef[Autoencoder], state: nnx.State[Any, Any], latent: Array) -> Array:
    return jnp.clip(decode(nnx.merge(graph, state), latent), -1, 1)


@partial(jax.jit, static_argnums=1)
def _seen(image: Array, size: int) -> Array:
    return preprocess(image * 0.5 + 0.5, size)


@partial(jax.jit, static_argnums=(0, 3))
def _tokens(
    graph: nnx.GraphDef[DINOv2 | VGG16],
    state: nnx.State[Any, Any],
    seen: Array,
    block: int | None,
) -> Array:
    return nnx.merge(graph, state)(seen, block)


def on_device(model: RestorationModel, device: jax.Device) -> RestorationModel:
    """The model with its networks' parameters on a device."""

    def move(network: Network) -> Network:
        graph, state = nnx.split(network)
        return nnx.merge(graph, jax.device_put(state, device))

    moved: dict[str, Any] = {
        "denoiser": move(model.denoiser),
        "autoencoder": move(model.autoencoder),
    }
    if model.encoder is not None:
        moved["encoder"] = move(model.encoder)
    return dataclasses.replace(model, **moved)


def channels_last(array: np.ndarray) -> np.ndarray:
    """Transpose [1, C, h, w], the official files' layout, to [1, h, w, C]."""
    return np.transpose(np.asarray(array, np.float32), (0, 2, 3, 1))
