"""Small autoencoders with random weights, whose norms and attention matter."""

import jax
import numpy as np
from flax import nnx

from vosr_jax.models.autoencoders.qwen2d import QwenAutoencoder, QwenSettings
from vosr_jax.models.autoencoders.sd import SDAutoencoder, SDCoderSettings, SDSettings


def stable_diffusion(sharpness: float = 8.0) -> SDAutoencoder:
    """Four times smaller; attention scores are multiplied by `sharpness`."""
    coder = SDCoderSettings(channels=(16, 32, 32), layers_per_block=1, groups=4)
    light = SDCoderSettings(channels=(8, 16, 32), layers_per_block=1, groups=4, quant=False)
    settings = SDSettings(encoder=coder, decoder=light)
    return _random(SDAutoencoder(settings, rngs=nnx.Rngs(0)), sharpness)


def qwen(sharpness: float = 8.0) -> QwenAutoencoder:
    """Eight times smaller, with norms that are a pixel's own."""
    return _random(QwenAutoencoder(QwenSettings(base_width=8), rngs=nnx.Rngs(0)), sharpness)


def half_dark_picture(height: int, width: int) -> np.ndarray:
    """[1, H, W, 3] in [-1, 1]: the left half nearly black and quiet, the right bright noise."""
    picture = np.random.default_rng(0).uniform(-0.6, 1, (1, height, width, 3)).astype(np.float32)
    picture[:, :, : width // 2] = 0.05 * picture[:, :, : width // 2] - 0.9
    return picture


def _random(autoencoder, sharpness: float):
    graph, state = nnx.split(autoencoder)
    filled = []
    for number, (path, variable) in enumerate(nnx.to_flat_state(state)):
        name, value = ".".join(map(str, path)), variable[...]
        key = jax.random.fold_in(jax.random.key(1), number)
        if name.endswith("weight"):
            value = 1 + 0.3 * jax.random.normal(key, value.shape)
        elif name.endswith("bias"):
            value = 0.1 * jax.random.normal(key, value.shape)
        elif "query" in name:
            value = sharpness * value
        elif name.endswith("middle.qkv.kernel"):
            value = value.at[:, 0].multiply(sharpness)
        filled.append((path, variable.replace(value)))
    return nnx.merge(graph, nnx.from_flat_state(filled))
