"""The frozen nets inside the step: pictures in, latents and visual tokens out, no gradient."""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array

from vosr_jax.diffusion.randomness import normal_rows, row_keys
from vosr_jax.models import autoencoders
from vosr_jax.models.dinov2 import DINOv2, visual_tokens
from vosr_jax.models.parameters import Blueprint, flatten
from vosr_jax.weights.of_config import config_autoencoder, config_encoder

if TYPE_CHECKING:
    from vosr_jax.config import Config

# Purposes of a row's draws; the objectives' start at 2.
_HR_POSTERIOR, _LQ_POSTERIOR = 0, 1


@dataclasses.dataclass(frozen=True)
class FrozenNets:
    """Structure of the frozen nets; their weights travel as an argument of the step.

    Attributes:
      autoencoder: blueprint of the autoencoder.
      encoder: blueprint of the visual encoder, or None.
      encoder_size: side of the encoder's input.
      encoder_block: 0-based block whose tokens are used.
      encoder_dtype: of the encoder's matrix products.
      sample_posterior: draw from the posterior, or take its mode.
    """

    autoencoder: Blueprint[Any]
    encoder: Blueprint[DINOv2] | None
    encoder_size: int
    encoder_block: int
    encoder_dtype: jnp.dtype
    sample_posterior: bool

    def inputs(self, weights: dict, batch: dict[str, Array], key: Array) -> dict:
        """What the objective works on.

        Args:
          weights: {"autoencoder": flat parameters, "encoder": flat parameters}.
          batch: "hr", "lq" uint8 [B, H, W, 3] and "index" uint32 [B, 2].
          key: the run's key; a row's posterior draws follow its index.

        Returns:
          "hr_latent", "lq_latent" [B, h, w, C]; "visual_tokens" [B, N, D] where there is an
          encoder; "hr_image" [B, H, W, 3] in [-1, 1]; "index".
        """
        hr, lq = (batch[name].astype(jnp.float32) / 127.5 - 1 for name in ("hr", "lq"))
        autoencoder = self.autoencoder.merge(weights["autoencoder"])
        shape = (
            hr.shape[1] // autoencoder.downscale,
            hr.shape[2] // autoencoder.downscale,
            autoencoder.latent_channels,
        )

        def latent(image: Array, purpose: int) -> Array:
            noise = None
            if self.sample_posterior:
                noise = normal_rows(row_keys(key, batch["index"]), purpose, shape)
            return autoencoders.encode(autoencoder, image, noise)

        inputs: dict[str, Array | None] = {
            "hr_latent": latent(hr, _HR_POSTERIOR),
            "lq_latent": latent(lq, _LQ_POSTERIOR),
            "hr_image": hr,
            "index": batch["index"],
        }
        if self.encoder is not None:
            inputs["visual_tokens"] = self.tokens(weights, lq)
        return jax.lax.stop_gradient(inputs)

    def tokens(self, weights: dict, image: Array) -> Array | None:
        """Visual tokens [B, N, D] of a picture [B, H, W, 3] in [-1, 1]; None without encoder."""
        if self.encoder is None:
            return None
        encoder = self.encoder.merge(weights["encoder"])
        size, block = self.encoder_size, self.encoder_block
        return visual_tokens(encoder, image, size, block, dtype=self.encoder_dtype)


def load_frozen(config: "Config", encoder_dtype: jnp.dtype) -> tuple[FrozenNets, dict]:
    """The frozen nets that a config names, and their weights.

    Raises:
      UserError: a file is missing or damaged, or does not fit the config.
    """
    autoencoder, encoder = config_autoencoder(config), config_encoder(config)
    nets = FrozenNets(
        autoencoder=Blueprint(lambda: autoencoder),
        encoder=Blueprint(lambda: encoder) if encoder is not None else None,
        encoder_size=config.encoder.size,
        encoder_block=config.encoder.block,
        encoder_dtype=jnp.dtype(encoder_dtype),
        sample_posterior=config.autoencoder.sample_posterior,
    )
    tokens = flatten(encoder) if encoder is not None else {}
    return nets, {"autoencoder": flatten(autoencoder), "encoder": tokens}
