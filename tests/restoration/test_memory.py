"""Planned tiles fit, and the formulas are near what the compiler needs."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from tests.restoration import autoencoders
from tests.restoration.models import tiny_model
from vosr_jax.models.lightning_dit import LightningDiT, LightningDiTSettings
from vosr_jax.restoration import memory
from vosr_jax.restoration.memory import plan_tile_sizes


@pytest.fixture(scope="module")
def model():
    return tiny_model(autoencoder=autoencoders.stable_diffusion())


def _floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _temporary(function, *arguments) -> int:
    compiled = jax.jit(function).lower(*arguments).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_less_memory_gives_smaller_tiles_and_enough_gives_none(model):
    size = (3000, 2000)
    sides = [plan_tile_sizes(model, size, free)[1] for free in (1 << 40, 1 << 30, 1 << 26)]
    assert sides[0] == 0 and sides[1] > sides[2] >= 128
    assert plan_tile_sizes(model, size, 1 << 40)[0] == 512
    assert plan_tile_sizes(model, size, 1)[0] == 128


def test_a_pixel_autoencoder_is_never_the_reason_for_tiles():
    assert plan_tile_sizes(tiny_model(), (3000, 2000), 1 << 30)[1] == 0


def test_the_estimate_of_a_whole_autoencoder_covers_the_compiled_one(model):
    graph, state = nnx.split(model.autoencoder)
    estimate = memory.whole_autoencoder_bytes(model, (256, 192))
    for function, shape in (("moments", (1, 256, 192, 3)), ("decode", (1, 64, 48, 4))):
        needed = _temporary(
            lambda s, x, f=function: getattr(nnx.merge(graph, s), f)(x), state, _floats(*shape)
        )
        assert needed <= 1.3 * estimate, function
    assert needed >= estimate / 4


def test_the_estimate_of_a_denoisers_tile_covers_the_compiled_one():
    settings = LightningDiTSettings(width=256, heads=4, depth=2, token_width=None)
    denoiser = LightningDiT(settings, rngs=nnx.Rngs(0))
    model = dataclasses.replace(
        tiny_model(), denoiser=denoiser, autoencoder=autoencoders.stable_diffusion()
    )
    tile = 256
    side = tile // model.autoencoder.downscale
    graph, state = nnx.split(denoiser)
    latent = _floats(2, side, side, 4)
    needed = _temporary(
        lambda s, c, z, t: nnx.merge(graph, s)(c, z, t), state, latent, latent, _floats(2)
    )
    assert needed <= memory.denoiser_bytes(model, tile) <= 8 * needed


def test_free_memory_is_known_here():
    assert memory.free_memory() > 1 << 26
