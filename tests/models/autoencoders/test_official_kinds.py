"""Stable Diffusion's, the light and Qwen's autoencoder: sizes, parts and the common face."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vosr_jax.models.autoencoders import decode, encode
from vosr_jax.models.autoencoders.qwen import QwenAutoencoder, QwenSettings
from vosr_jax.models.autoencoders.sd import (
    SDAutoencoder,
    SDCoderSettings,
    SDSettings,
    split_moments,
)

CODER = SDCoderSettings(channels=(8, 16), layers_per_block=1, groups=4)
SD = SDSettings(encoder=CODER, decoder=CODER)
QWEN = QwenSettings(base_width=8, multipliers=(1, 2), residual_blocks=1)


def _build(settings):
    kind = SDAutoencoder if isinstance(settings, SDSettings) else QwenAutoencoder
    return kind(settings, rngs=nnx.Rngs(0))


def _count(module) -> int:
    return sum(x.size for x in jax.tree.leaves(nnx.state(module)))


def test_stable_diffusions_sizes_are_the_released_ones():
    shapes = nnx.eval_shape(lambda: _build(SDSettings.sd21()))
    assert _count(shapes.encoder) == 34_163_664
    assert _count(shapes.decoder) == 49_490_199
    light = nnx.eval_shape(lambda: _build(SDSettings.sd21_light()))
    assert _count(light.encoder) == 34_163_664
    assert _count(light.decoder) == 12_387_459


@pytest.mark.parametrize("settings", [SD, QWEN])
def test_every_autoencoder_has_the_same_face(settings):
    model = _build(settings)
    image = jax.random.uniform(jax.random.key(0), (2, 8, 12, 3), minval=-1.0)
    mean, std = model.moments(image)
    grid = (2, 8 // model.downscale, 12 // model.downscale, model.latent_channels)
    assert mean.shape == std.shape == grid and (np.asarray(std) > 0).all()
    noise = jax.random.normal(jax.random.key(1), grid)
    latent = encode(model, image, noise)
    np.testing.assert_allclose(latent, (mean + std * noise) * model.scaling_factor, rtol=1e-6)
    np.testing.assert_allclose(encode(model, image), mean * model.scaling_factor, rtol=1e-6)
    assert decode(model, latent).shape == image.shape


@pytest.mark.parametrize("settings", [SD, QWEN])
def test_pictures_of_a_batch_do_not_mix(settings):
    model = _build(settings)
    image = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3), minval=-1.0)
    alone = model.moments(image[1:])[0]
    np.testing.assert_allclose(model.moments(image)[0][1:], alone, rtol=1e-5, atol=1e-6)


def test_qwens_pictures_are_clipped():
    model = _build(QWEN)
    model.decoder.conv_out.bias[...] = jnp.asarray([9.0, -9.0, 0.0])
    picture = np.asarray(model.decode(jnp.zeros((1, 2, 2, 16))))
    assert picture.max() == 1.0 and picture.min() == -1.0


def test_a_part_that_was_left_out_says_so():
    encoder_only = _build(dataclasses.replace(SD, decoder=None))
    assert encoder_only.downscale == 2
    with pytest.raises(ValueError, match="no decoder"):
        encoder_only.decode(jnp.zeros((1, 2, 2, 4)))
    decoder_only = _build(dataclasses.replace(QWEN, parts=("decoder",)))
    with pytest.raises(ValueError, match="no encoder"):
        decoder_only.moments(jnp.zeros((1, 4, 4, 3)))


def test_extreme_log_variances_are_clipped():
    _, std = split_moments(jnp.asarray([0.0, 0.0, -100.0, 100.0]))
    np.testing.assert_allclose(std, np.exp([-15.0, 10.0]), rtol=1e-6)
