"""Planned tiles fit, and the formulas are near what the compiler needs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.restoration import autoencoders
from tests.restoration.models import tiny_model
from vosr_jax.models.lightning_dit.network import LightningDiT, LightningDiTSettings
from vosr_jax.restoration import memory
from vosr_jax.restoration.memory import plan_tile_sizes
from vosr_jax.restoration.tiled import streaming
from vosr_jax.restoration.tiled.autoencoder import decode_tiled, encode_tiled


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
    memories = 1 << 40, 1 << 30, 1 << 26
    sides = [plan_tile_sizes(model, size, free, "exact")[1] for free in memories]
    assert sides[0] == 0 and sides[1] > sides[2] >= 128
    assert plan_tile_sizes(model, size, 1 << 40)[0] == 512
    assert plan_tile_sizes(model, size, 1)[0] == 128


def test_shared_programs_on_a_cpu_have_tiles_of_one_size(model):
    sizes = (100, 90), (3000, 2000)
    sides = {plan_tile_sizes(model, size, free)[1] for size in sizes for free in (1 << 26, 1 << 40)}
    assert sides == {memory.SHARED_AUTOENCODER_SIDE}


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


@pytest.mark.parametrize("side", [256, 512])
def test_the_estimate_of_tiles_covers_every_compiled_program(model, side, monkeypatch):
    """What the compiler needs for a program with its arguments and its results."""
    needed = {}

    def measured(name, program):
        def run(*arguments):
            found = program.lower(*arguments).compile().memory_analysis()
            sizes = found.temp_size_in_bytes, found.argument_size_in_bytes
            needed[name] = max(needed.get(name, 0), sum(sizes) + found.output_size_in_bytes)
            return program(*arguments)

        return run

    monkeypatch.setattr(streaming, "_compute", measured("tile", streaming._compute))
    monkeypatch.setattr(streaming, "_absorb", measured("attention", streaming._absorb))
    monkeypatch.setattr(streaming, "_tiles", lambda length, side: [(0, (0, min(side, length)))])
    height, width = side + 64, side + 128
    encode_tiled(model.autoencoder, np.zeros((1, height, width, 3)), None, side)
    decode_tiled(model.autoencoder, np.zeros((1, height // 4, width // 4, 4)), side)
    estimate = memory.tiled_autoencoder_bytes(model, side)
    assert max(needed.values()) <= estimate
    assert needed["tile"] >= (estimate - memory.attention_bytes()) / 4


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


def test_tiles_in_one_call_need_their_memory_each(model, monkeypatch):
    one = memory.denoiser_bytes(model, 512)
    assert memory.denoiser_bytes(model, 512, 8) == 8 * one
    free = int(2 * one / 0.6)
    assert plan_tile_sizes(model, (1024, 1024), free)[0] == 512
    monkeypatch.setattr(memory, "tile_batch", lambda: 8)
    assert plan_tile_sizes(model, (1024, 1024), free)[0] < 512
