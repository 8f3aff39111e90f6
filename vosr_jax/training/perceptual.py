"""An optional perceptual term for training on pixels: LPIPS of the predicted endpoint.

VOSR has none; its autoencoder was trained with one. The network is VGG16, so that the AlexNet
LPIPS that evaluations report is never what was trained on.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax.numpy as jnp
from jax import Array

from vosr_jax.models import autoencoders
from vosr_jax.training.frozen import FrozenNets

if TYPE_CHECKING:
    from vosr_jax.config import Config


def make_endpoint_distance(
    config: "Config", frozen: FrozenNets
) -> Callable[[dict, Array, dict, Array | None], Array] | None:
    """(weights, latent, inputs, wanted [B] bool) -> [B] distances; None where its weight is 0.

    The first `objective.perceptual_rows` (0: all) of the wanted rows are compared on their
    central `objective.perceptual_crop` pixels and scaled up, so that the mean over the batch
    stays an estimate of all wanted rows' mean; the other rows count 0.
    """
    objective = config.objective
    if not objective.perceptual_weight:
        return None
    from vosr_jax.evaluation.lpips import lpips

    batch = config.train.batch_size // config.train.microbatches
    rows = objective.perceptual_rows or batch
    rows = max(rows // config.train.microbatches, 1)
    start = (config.data.crop_size - objective.perceptual_crop) // 2
    window = slice(start, start + objective.perceptual_crop)

    def distance(weights: dict, latent: Array, inputs: dict, wanted: Array | None = None) -> Array:
        wanted = jnp.ones(batch, bool) if wanted is None else wanted
        chosen = jnp.argsort(~wanted)[:rows]  # stable: the first wanted ones
        autoencoder = frozen.autoencoder.merge(weights["autoencoder"])
        image = autoencoders.decode(autoencoder, latent[chosen])
        truth = inputs["hr_image"][chosen]
        distances = lpips(weights["lpips"], image[:, window, window], truth[:, window, window])
        counted = wanted[chosen]
        scale = batch / jnp.maximum(jnp.sum(counted), 1)
        return jnp.zeros(batch).at[chosen].set(jnp.where(counted, distances * scale, 0.0))

    return distance


def perceptual_weights(config: "Config") -> dict:
    """The frozen weights that the term needs, {} where its weight is 0."""
    if not config.objective.perceptual_weight:
        return {}
    from vosr_jax.evaluation.lpips import load_lpips

    return {"lpips": load_lpips("vgg")}
