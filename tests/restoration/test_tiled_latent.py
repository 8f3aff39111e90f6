"""Tiles of a latent: cut and blended right, within programs' tiles that may be larger."""

import jax
import numpy as np
import pytest

from vosr_jax.restoration.tiled.latent import (
    TiledLatent,
    gaussian_weights,
    plan_tiles,
    program_sides,
    program_tile,
)

_HW = (21, 30)
_GRID = plan_tiles(_HW, 8, 3, 1, 1)


def _pair(rows=2):
    keys = jax.random.split(jax.random.key(0), 2)
    return [np.asarray(jax.random.normal(key, (rows, *_HW, 4))) for key in keys]


@pytest.mark.parametrize("sides", [(), (8,), (5, 11)])
def test_a_function_of_single_pixels_is_the_same_in_tiles(sides):
    condition, noisy = _pair()
    latent = TiledLatent(condition, noisy, _GRID, program_tile(_HW, _GRID, sides))
    side = 11 if sides == (5, 11) else 8
    for number in range(len(_GRID.starts)):
        tile, noise = latent.tile(number)
        assert tile.shape == (2, side, side, 4)
        latent.add(number, 2 * tile - noise)
    latent.step(np.float32(1), np.float32(0))
    np.testing.assert_allclose(latent.result(), noisy - (2 * condition - noisy), atol=1e-5)


@pytest.mark.parametrize("sides", [(), (12,)])
def test_every_tile_has_its_gaussian_weight_(sides):
    condition, noisy = _pair(rows=1)
    latent = TiledLatent(condition, noisy, _GRID, program_tile(_HW, _GRID, sides))
    side = 12 if sides else 8
    values, mass = np.zeros(_HW), np.zeros(_HW)
    for number, (row, column) in enumerate(_GRID.starts):
        # Beyond the extent may be anything.
        velocity = np.full((1, side, side, 4), np.nan, np.float32)
        velocity[:, :8, :8] = number
        latent.add(number, velocity)
        place = np.s_[row : row + 8, column : column + 8]
        values[place] += number * gaussian_weights(8, 8)
        mass[place] += gaussian_weights(8, 8)
    latent.step(np.float32(1), np.float32(0))
    np.testing.assert_allclose((noisy - latent.result())[0, ..., 0], values / mass, rtol=1e-4)


def test_programs_are_those_of_a_tile_and_of_half_of_it():
    assert program_sides(512, 8, 2) == (32, 64)
    assert program_sides(96, 8, 2) == (6, 12)
    assert program_sides(24, 8, 2) == (2,)
    assert program_sides(0, 8, 2) == ()
    assert program_tile((64, 64), None, (32, 64)) == ((64, 64), (64, 64))
    assert program_tile((64, 64), None, (32, 64), full_apart=True) == ((64, 64), None)
    assert program_tile((32, 32), None, (32, 64), full_apart=True) == ((32, 32), (32, 32))
    assert program_tile((64, 60), None, (32, 64)) == ((64, 64), (64, 60))
    assert program_tile((30, 32), None, (32, 64)) == ((32, 32), (30, 32))
    assert program_tile((70, 60), None, (32, 64)) == ((70, 60), None)
    narrow = plan_tiles((20, 200), 64, 8, 1, 2)
    assert program_tile((20, 200), narrow, (32, 64)) == ((32, 32), (20, 20))
