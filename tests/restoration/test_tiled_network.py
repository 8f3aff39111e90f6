"""Tiles in the denoiser: blended right, whatever the batch, each with its own tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vosr_jax.diffusion.sampling import SamplerSettings, sample
from vosr_jax.restoration.tiled_network import tile_batches, tiled_network
from vosr_jax.restoration.tiling import gaussian_weights, plan_tiles

_GRID = plan_tiles((21, 30), 8, 3, 1, 1)


def _pair(rows=2):
    keys = jax.random.split(jax.random.key(0), 2)
    return [jax.random.normal(key, (rows, 21, 30, 4)) for key in keys]


def test_a_network_that_sees_single_pixels_gives_the_same_in_tiles():
    condition, noisy = _pair()
    t, r = jnp.array([0.2, 0.7]), jnp.array([0.1, 0.3])

    def network(condition, noisy, t, visual_tokens, r):
        return condition * 2 - noisy * t[:, None, None, None] + r[:, None, None, None]

    whole = network(condition, noisy, t, None, r)
    for tile_batch in (1, 4):
        tiled = jax.jit(tiled_network(network, _GRID, tile_batch))
        np.testing.assert_allclose(tiled(condition, noisy, t, None, r), whole, atol=1e-5)


@pytest.mark.parametrize("tile_batch", [1, 5])
def test_every_tile_has_its_own_tokens_and_gaussian_weight(tile_batch):
    condition, noisy = _pair(rows=1)
    starts = _GRID.starts
    tokens = jnp.arange(1.0, len(starts) + 1)[None, :, None, None] * jnp.ones((1, 1, 3, 2))

    def network(condition, noisy, t, visual_tokens, r):
        return jnp.zeros_like(noisy) + visual_tokens.mean((1, 2))[:, None, None, None]

    ours = tiled_network(network, _GRID, tile_batch)(condition, noisy, jnp.ones(1), tokens)
    values, mass = np.zeros((21, 30)), np.zeros((21, 30))
    for number, (row, column) in enumerate(starts, 1):
        place = np.s_[row : row + 8, column : column + 8]
        values[place] += number * gaussian_weights(8, 8)
        mass[place] += gaussian_weights(8, 8)
    np.testing.assert_allclose(ours[0, ..., 0], values / mass, rtol=1e-4)


def test_a_guided_sampler_runs_on_tiles_and_reports_every_batch():
    condition, noisy = _pair(rows=1)
    tokens = jnp.ones((1, len(_GRID.starts), 3, 2))
    calls = []

    def network(condition, noisy, t, visual_tokens, r):
        return condition + visual_tokens.mean((1, 2))[:, None, None, None]

    tiled = tiled_network(network, _GRID, 4, lambda: calls.append(1))
    settings = SamplerSettings(steps=3, guidance_scale=0.5)
    whole = sample(network, condition, noisy, settings, visual_tokens=tokens[:, 0])
    ours = sample(tiled, condition, noisy, settings, visual_tokens=tokens)
    np.testing.assert_allclose(ours, whole, atol=1e-5)
    jax.effects_barrier()
    assert len(calls) == 3 * tile_batches(_GRID, 4)
