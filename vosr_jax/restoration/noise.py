"""Random numbers of one image, from its seed alone."""

import math
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array

from vosr_jax.errors import UserError
from vosr_jax.restoration.model import RestorationModel, channels_last


def latent_draws(
    model: RestorationModel,
    size: tuple[int, int],
    seed: int,
    noise: np.ndarray | None = None,
    posterior_noise: np.ndarray | None = None,
    *,
    posterior: str | None = None,
) -> tuple[Any, Any]:
    """Draw the posterior's noise (None if the model takes its mode) and the sampler's noise.

    Args:
      model: the model whose latents they are for.
      size: (height, width) of the computed image, in pixels.
      seed: alone fixes the numbers; other images in the batch do not matter.
      noise, posterior_noise: the draws themselves, [1, C, h, w], instead of the seed's.
      posterior: "mode" or "sample"; None is the model's own.

    Returns:
      Two arrays [1, h, w, C]; one field for the whole image, even if it is cut into tiles.

    Raises:
      UserError: a given draw has another shape.
    """
    autoencoder = model.autoencoder
    shape = (1, *(side // autoencoder.downscale for side in size), autoencoder.latent_channels)
    drawn_posterior = model.sample_posterior if posterior is None else posterior == "sample"
    drawn: list[Any] = []
    for number, given in enumerate((posterior_noise, noise)):
        if given is None:
            wanted = number == 1 or drawn_posterior
            drawn.append(_normal(seed, number, shape) if wanted else None)
            continue
        draw = channels_last(given)
        if draw.shape != shape:
            expected = [1, shape[3], shape[1], shape[2]]
            raise UserError(f"noise must have the shape {expected}, not {np.shape(given)}")
        drawn.append(draw)
    return drawn[0], drawn[1]


def _normal(seed: int, number: int, shape: tuple[int, ...]) -> np.ndarray:
    """jax.random.normal(fold_in(key(seed), number), shape), with programs for few lengths.

    With partitionable draws, JAX's default, each value depends only on its place in the flat
    array.
    """
    count = math.prod(shape)
    with jax.threefry_partitionable(True):
        drawn = _flat_normal(np.uint32(seed), np.uint32(number), 1 << (count - 1).bit_length())
    return np.asarray(drawn)[:count].reshape(shape)


@partial(jax.jit, static_argnums=2)
def _flat_normal(seed: Array, number: Array, length: int) -> Array:
    return jax.random.normal(jax.random.fold_in(jax.random.key(seed), number), (length,))
