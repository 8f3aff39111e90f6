"""The frozen nets inside the step: images in, latents and visual tokens out, no gradient."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from vosr_jax.config import Config
from vosr_jax.diffusion.noise import normal_rows, row_keys
from vosr_jax.models import autoencoders
from vosr_jax.models.attention.dispatch import Attention, use_attention
from vosr_jax.models.dinov2.network import DINOv2, visual_tokens
from vosr_jax.models.vgg import VGG16
from vosr_jax.parameters.blueprint import Blueprint, Prepare
from vosr_jax.weights.opening import config_autoencoder, config_encoder

# Purpose numbers of a row's random draws; those of the objectives start at 2.
_HR_POSTERIOR, _LQ_POSTERIOR = 0, 1
# Names that convolutions accept too; "high" is three bfloat16 passes on TPU, TF32 on GPU.
_JAX_PRECISION = {"float32": "highest", "bfloat16_3x": "high", "bfloat16": "bfloat16"}


@dataclasses.dataclass(frozen=True)
class FrozenNets:
    """Structure of the frozen nets; their weights are an argument of the step.

    Attributes:
      autoencoder: blueprint of the autoencoder.
      encoder: blueprint of the visual encoder, or None.
      encoder_size: side of the encoder's input.
      encoder_block: 0-based block whose tokens are used.
      encoder_dtype: of the encoder's matrix products.
      autoencoder_precision: of the autoencoder's float32 products: "float32", "bfloat16_3x" or
        "bfloat16"; see `AutoencoderConfig`.
      autoencoder_activations: dtype of the activations between its layers.
      sample_posterior: draw from the posterior, or take its mode.
      chunks: number of parts in which the batch passes through the nets, one after another; only
        one part's activations are in memory.
      tokens_of: the image that visual tokens come from; see `EncoderConfig`.
    """

    autoencoder: Blueprint[Any]
    encoder: Blueprint[DINOv2 | VGG16] | None
    encoder_size: int
    encoder_block: int
    encoder_dtype: jnp.dtype
    sample_posterior: bool
    autoencoder_precision: str = "float32"
    autoencoder_activations: str = "float32"
    chunks: int = 1
    tokens_of: str = "lq"

    def paired(self, batch: dict[str, Array]) -> dict[str, Array]:
        """The whole batch, with "other" added if a row's tokens come from another image.

        That image is half a batch away, even if the batch is divided later.
        """
        if self.tokens_of != "other":
            return batch
        return batch | {"other": _another(batch["lq"])}

    def inputs(self, weights: dict, batch: dict[str, Array], key: Array) -> dict:
        """Compute the objective's inputs.

        Args:
          weights: {"autoencoder": flat parameters, "encoder": flat parameters}.
          batch: "hr", "lq" uint8 [B, H, W, 3] and "index" uint32 [B, 2]; "other" from `paired`.
          key: the run's key; a row's posterior draws depend on its index.

        Returns:
          "hr_latent", "lq_latent" [B, h, w, C]; "visual_tokens" [B, N, D] if there is an encoder;
          "hr_image" [B, H, W, 3] in [-1, 1]; "index".
        """
        if self.chunks == 1:
            return self._inputs(weights, batch, key)
        # Row i goes to part i % chunks, so every part spans all devices.
        n = self.chunks
        parts = jax.tree.map(lambda x: x.reshape(-1, n, *x.shape[1:]).swapaxes(0, 1), batch)
        parts = jax.lax.map(lambda part: self._inputs(weights, part, key), parts)
        return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), parts)

    def _inputs(self, weights: dict, batch: dict[str, Array], key: Array) -> dict:
        hr, lq = (batch[name].astype(jnp.float32) / 127.5 - 1 for name in ("hr", "lq"))
        autoencoder = self.autoencoder.merge(weights["autoencoder"])
        if self.autoencoder_activations != "float32":
            autoencoder = autoencoders.with_activations(autoencoder, self.autoencoder_activations)
        shape = (
            hr.shape[1] // autoencoder.downscale,
            hr.shape[2] // autoencoder.downscale,
            autoencoder.latent_channels,
        )

        def latent(image: Array, noise: Array | None) -> Array:
            with jax.default_matmul_precision(_JAX_PRECISION[self.autoencoder_precision]):
                return autoencoders.encode(autoencoder, image, noise)

        noise = None
        if self.sample_posterior:
            rows = row_keys(key, batch["index"])
            noise = jnp.stack([normal_rows(rows, p, shape) for p in (_HR_POSTERIOR, _LQ_POSTERIOR)])
        # hr, then lq: the autoencoder compiles once, and one image's activations are in memory.
        hr_latent, lq_latent = jax.lax.map(lambda pair: latent(*pair), (jnp.stack([hr, lq]), noise))
        inputs: dict[str, Array | None] = {
            "hr_latent": hr_latent,
            "lq_latent": lq_latent,
            "hr_image": hr,
            "index": batch["index"],
        }
        if self.encoder is not None:
            other = batch["other"].astype(jnp.float32) / 127.5 - 1 if "other" in batch else None
            inputs["visual_tokens"] = self.tokens(weights, lq, hr, other)
        return jax.lax.stop_gradient(inputs)

    def tokens(
        self, weights: dict, lq: Array, hr: Array, other: Array | None = None
    ) -> Array | None:
        """Visual tokens [B, N, D] of images [B, H, W, 3] in [-1, 1]; None without an encoder."""
        if self.encoder is None:
            return None
        encoder = self.encoder.merge(weights["encoder"])
        size, block = self.encoder_size, self.encoder_block
        other = _another(lq) if other is None else other
        image = {"hr": hr, "other": other}.get(self.tokens_of, lq)
        tokens = visual_tokens(encoder, image, size, block, dtype=self.encoder_dtype)
        return jnp.zeros_like(tokens) if self.tokens_of == "nothing" else tokens


def _another(pictures: Array) -> Array:
    """For every row, the image of the row half a batch away."""
    return jnp.roll(pictures, len(pictures) // 2, axis=0)


def frozen_nets(
    config: Config,
    autoencoder: Any,
    encoder: DINOv2 | VGG16 | None,
    encoder_dtype: jnp.dtype,
    prepare: Prepare | None = None,
    attention: Attention | None = None,
) -> FrozenNets:
    """Build the structure from an autoencoder and a visual encoder, whose arrays may be shapes.

    Args:
      config: the experiment.
      autoencoder, encoder: the networks.
      encoder_dtype: of the encoder's matrix products.
      prepare: applied to the encoder's parameters where it reads them.
      attention: both networks'; None is the default platform's on one device.
    """
    if encoder is not None:
        encoder.prepare = prepare
    if attention is not None:
        for network in (autoencoder, encoder):
            use_attention(network, attention)
    return FrozenNets(
        autoencoder=Blueprint(lambda: autoencoder),
        encoder=Blueprint(lambda: encoder) if encoder is not None else None,
        encoder_size=config.encoder.size,
        encoder_block=config.encoder.block,
        encoder_dtype=jnp.dtype(encoder_dtype),
        sample_posterior=config.autoencoder.sample_posterior,
        autoencoder_precision=config.autoencoder.precision,
        autoencoder_activations=config.autoencoder.activations,
        chunks=config.train.frozen_chunks,
        tokens_of=config.encoder.tokens_of,
    )


def open_frozen(
    config: Config,
    encoder_dtype: jnp.dtype,
    prepare: Prepare | None = None,
    attention: Attention | None = None,
) -> tuple[FrozenNets, dict]:
    """Open the frozen nets that a config names; their weights are not loaded yet.

    Args:
      config, encoder_dtype, prepare, attention: as in `frozen_nets`.

    Returns:
      (structure, {"autoencoder": host arrays by dotted path, "encoder": the same, or {}}).

    Raises:
      UserError: a file is missing or damaged, or does not fit the config.
    """
    autoencoder, encoder = config_autoencoder(config), config_encoder(config)
    weights = {"autoencoder": autoencoder.parameters, "encoder": {}}
    net: DINOv2 | VGG16 | None = None
    if encoder is not None:
        net, weights["encoder"] = encoder.blueprint.abstract(), encoder.parameters
    coder = autoencoder.blueprint.abstract()
    nets = frozen_nets(config, coder, net, encoder_dtype, prepare, attention)
    return nets, weights
