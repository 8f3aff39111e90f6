"""Tiles in the denoiser: blended right, whatever the batch, each with its own tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vosr_jax.diffusion.sampling import SamplerSettings, sample
from vosr_jax.restoration.tiled_network import TiledLatent, tile_batches
from vosr_jax.restoration.tiling import gaussian_weights, plan_tiles

_GRID = plan_tiles((21, 30), 8, 3, 1, 1)
# A step of length 1 from t = 1 to 0: noise - latent is the velocity itself.
_ONE_STEP = SamplerSettings(steps=1)


def _pair(rows=2):
    keys = jax.random.split(jax.random.key(0), 2)
    return [jax.random.normal(key, (rows, 21, 30, 4)) for key in keys]


def _tiles(tile_batch):
    return TiledLatent(_GRID, tile_batch, (21, 30))


@pytest.mark.parametrize("tile_batch", [1, 4])
def test_a_network_that_sees_single_pixels_gives_the_same_in_tiles(tile_batch):
    condition, noisy = _pair()
    settings = SamplerSettings(steps=3, r_input=True)

    def network(condition, noisy, t, visual_tokens, r):
        return condition * 2 - noisy * t[:, None, None, None] + r[:, None, None, None]

    whole = sample(network, condition, noisy, settings)
    tiled = sample(network, condition, noisy, settings, parts=_tiles(tile_batch))
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


@pytest.mark.parametrize("tile_batch", [1, 5])
def test_every_tile_has_its_own_tokens_and_gaussian_weight(tile_batch):
    condition, noisy = _pair(rows=1)
    starts = _GRID.starts
    tokens = jnp.arange(1.0, len(starts) + 1)[None, :, None, None] * jnp.ones((1, 1, 3, 2))

    def network(condition, noisy, t, visual_tokens, r):
        return jnp.zeros_like(noisy) + visual_tokens.mean((1, 2))[:, None, None, None]

    tiles = _tiles(tile_batch)
    latent = sample(network, condition, noisy, _ONE_STEP, visual_tokens=tokens, parts=tiles)
    values, mass = np.zeros((21, 30)), np.zeros((21, 30))
    for number, (row, column) in enumerate(starts, 1):
        place = np.s_[row : row + 8, column : column + 8]
        values[place] += number * gaussian_weights(8, 8)
        mass[place] += gaussian_weights(8, 8)
    np.testing.assert_allclose((noisy - latent)[0, ..., 0], values / mass, rtol=1e-4)


def test_a_guided_sampler_runs_on_tiles():
    condition, noisy = _pair(rows=1)
    tokens = jnp.ones((1, len(_GRID.starts), 3, 2))

    def network(condition, noisy, t, visual_tokens, r):
        return condition + visual_tokens.mean((1, 2))[:, None, None, None]

    settings = SamplerSettings(steps=3, guidance_scale=0.5)
    whole = sample(network, condition, noisy, settings, visual_tokens=tokens[:, 0])
    ours = sample(network, condition, noisy, settings, visual_tokens=tokens, parts=_tiles(5))
    np.testing.assert_allclose(ours, whole, atol=1e-5)


def test_fillers_of_the_last_batch_count_for_nothing_even_if_they_are_not_finite():
    tiles, last = _tiles(5), tile_batches(_GRID, 5) - 1
    fillers = 5 * tiles.count - len(_GRID.starts)
    assert tiles.count == last + 1 and fillers == 1
    values = jnp.ones((10, 8, 8, 4)).at[-2 * fillers :].set(jnp.nan)
    total = tiles.add(jnp.zeros((2, 21, 30, 4)), values, last)
    assert np.isfinite(total).all() and total.max() > 0.5
    marked = jnp.ones(10, bool)
    assert tiles.counted(marked, last) == 2 * (5 - fillers)
    assert tiles.counted(marked, 0) == 10
