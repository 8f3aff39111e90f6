"""The random numbers of one picture, from its seed alone."""

from typing import Any

import jax
import numpy as np

from vosr_jax.errors import UserError
from vosr_jax.restoration.model import RestorationModel, channels_last


def latent_draws(
    model: RestorationModel,
    size: tuple[int, int],
    seed: int,
    noise: np.ndarray | None = None,
    posterior_noise: np.ndarray | None = None,
) -> tuple[Any, Any]:
    """The posterior's draw (None where the model takes its mode) and the sampler's noise.

    Args:
      model: whose latents they are for.
      size: (height, width) of the picture that is computed, in pixels.
      seed: whatever else is restored beside it, the same numbers.
      noise, posterior_noise: the draws themselves, [1, C, h, w], instead.

    Returns:
      Two arrays [1, h, w, C]; one field for the whole picture, also where it is cut into tiles.

    Raises:
      UserError: a draw of another shape.
    """
    autoencoder = model.autoencoder
    shape = (1, *(side // autoencoder.downscale for side in size), autoencoder.latent_channels)
    drawn: list[Any] = []
    for number, given in enumerate((posterior_noise, noise)):
        if given is None:
            key = jax.random.fold_in(jax.random.key(seed), number)
            drawn.append(jax.random.normal(key, shape))
            continue
        draw = channels_last(given)
        if draw.shape != shape:
            expected = [1, shape[3], shape[1], shape[2]]
            raise UserError(f"noise must have the shape {expected}, not {np.shape(given)}")
        drawn.append(draw)
    if not model.sample_posterior and posterior_noise is None:
        drawn[0] = None
    return drawn[0], drawn[1]
