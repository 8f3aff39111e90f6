"""Small autoencoders with random weights, whose norms and attention matter."""

import dataclasses
import functools

import jax
import numpy as np
from flax import nnx

from vosr_jax.models.autoencoders.qwen import QwenAutoencoder, QwenSettings
from vosr_jax.models.autoencoders.sd import SDAutoencoder, SDCoderSettings, SDSettings

_CODER = SDCoderSettings(channels=(16, 32, 32), layers_per_block=1, groups=4)
_LIGHT = SDCoderSettings(channels=(8, 16, 32), layers_per_block=1, groups=4, quant=False)


@functools.cache
def stable_diffusion(sharpness: float = 8.0) -> SDAutoencoder:
    """Four times smaller; attention scores are multiplied by `sharpness`."""
    return _stable_diffusion(SDSettings(encoder=_CODER, decoder=_LIGHT), sharpness)


@functools.cache
def full_decoder(sharpness: float = 8.0) -> SDAutoencoder:
    """The decoder as wide as the encoder, with a layer before it."""
    return _stable_diffusion(SDSettings(encoder=_CODER, decoder=_CODER), sharpness)


@functools.cache
def without_attention() -> SDAutoencoder:
    """Two residual blocks in the middle and nothing between them."""
    coders = (dataclasses.replace(coder, attend=False) for coder in (_CODER, _LIGHT))
    return _stable_diffusion(SDSettings(*coders), 1.0)


def released_light(sharpness: float = 8.0) -> SDAutoencoder:
    """Stable Diffusion's encoder and the light decoder in their released sizes."""
    return _stable_diffusion(SDSettings.sd21_light(), sharpness)


def _stable_diffusion(settings: SDSettings, sharpness: float) -> SDAutoencoder:
    return _random(SDAutoencoder(settings, rngs=nnx.Rngs(0)), sharpness)


@functools.cache
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
