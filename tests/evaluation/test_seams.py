"""Seams are found where they are, and a real photograph restored in tiles has none."""

import numpy as np
import pytest
from PIL import Image

from vosr_jax.evaluation.seams import (
    border_energy,
    period_power,
    tile_borders,
    tile_disagreement,
)
from vosr_jax.restoration import restore, upscaler
from vosr_jax.restoration.tiled import latent as tiled_latent
from vosr_jax.restoration.tiled.latent import TileGrid, plan_tiles

# How much more a picture made in tiles may have on its tiles' borders than one made whole.
_BOUND = 1.3


@pytest.fixture
def texture() -> np.ndarray:
    return np.random.default_rng(0).normal(128, 20, (192, 256, 3))


def test_borders_are_where_tiles_begin_and_end():
    assert tile_borders([0, 64, 100], 96, 196) == [64, 96, 100, 160]


def test_a_step_along_borders_is_found(texture):
    rows, columns = [64, 128], [64, 128, 192]
    assert border_energy(texture, rows, columns) == pytest.approx(1, abs=0.05)
    texture[64:128] += 60
    assert border_energy(texture, rows, []) > 1.5
    assert border_energy(texture, [32, 100], []) < 1.05


def test_a_grid_is_found_at_its_period_alone(texture):
    assert 0.5 < period_power(texture, 32) < 1.6
    texture[:, ::32] += 30
    assert period_power(texture, 32) > 10
    assert period_power(texture, 27) < 2
    coarse = period_power(texture, 64, finer=32)
    assert coarse < 2 < period_power(texture, 64)
    with pytest.raises(ValueError, match="two periods"):
        period_power(texture, 100)


def test_a_reference_takes_off_what_the_picture_has_itself(texture):
    texture[:, ::32] += 30
    noisy = texture + np.random.default_rng(1).normal(0, 5, texture.shape)
    assert period_power(noisy, 32, reference=texture) < 2 < period_power(noisy, 32)


def test_a_photograph_in_small_tiles_shows_no_seams_but_in_plain_tiles_it_does(monkeypatch):
    photograph = Image.open("assets/heldout/coffee.png").convert("RGB").crop((0, 0, 256, 256))
    small = photograph.resize((64, 64), Image.Resampling.BICUBIC)
    nano = upscaler.Upscaler.from_pretrained("nano")
    downscale, patch = nano.model.autoencoder.downscale, nano.model.denoiser.settings.patch_size
    # Tiles as large as the crops that it was trained on: smaller ones show it too little.
    grid = plan_tiles((256 // downscale, 256 // downscale), 128, 64, downscale, patch)
    assert grid is not None and len(grid.starts) == 9
    for scale in (1.0, 3.0, 5.0):
        whole = np.asarray(nano(small, tile_size=0, guidance_scale=scale))
        given = {"tile_size": 128, "tile_overlap": 64, "guidance_scale": scale}
        tiled = np.asarray(nano(small, **given))
        assert _border_ratio(tiled, whole, grid, downscale) < _BOUND
        assert _period_ratio(tiled, whole, 64) < _BOUND

    # Strong guidance brings out what each tile makes of its own surroundings.
    side = 64 // downscale
    starts = (0, side, 2 * side, 3 * side)
    plain = TileGrid(side, starts, starts)
    monkeypatch.setattr(restore, "plan_tiles", lambda *_: plain)
    monkeypatch.setattr(tiled_latent, "gaussian_weights", lambda *size: np.ones(size, np.float32))
    seams = np.asarray(nano(small, tile_size=64, guidance_scale=5.0))
    assert _border_ratio(seams, whole, plain, downscale) > 1.5 * _BOUND
    assert _period_ratio(seams, whole, 64) > 1.1


def test_tiles_that_see_little_disagree_more_and_two_grids_are_blended():
    photograph = Image.open("assets/heldout/coffee.png").convert("RGB").crop((0, 0, 256, 192))
    small = photograph.resize((64, 48), Image.Resampling.BICUBIC)
    nano = upscaler.Upscaler.from_pretrained("nano-onestep")
    near, far = (
        tile_disagreement(nano, small, tile_size=side, tile_overlap=side // 2) for side in (128, 64)
    )
    assert 0 < near < far < 1
    assert tile_disagreement(nano, small) == 0
    whole = np.asarray(nano(small, tile_size=0))
    given = {"tile_size": 64, "tile_overlap": 8}
    once, twice = (np.asarray(nano(small, **given, tile_passes=passes)) for passes in (1, 2))
    assert np.abs(once.astype(int) - twice).max() > 0
    model, downscale = nano.model, nano.model.autoencoder.downscale
    hw = (192 // downscale, 256 // downscale)
    grid = plan_tiles(hw, 64, 8, downscale, model.denoiser.settings.patch_size)
    assert grid is not None
    assert _border_ratio(twice, whole, grid, downscale) < _BOUND


def _border_ratio(image, reference, grid: TileGrid, downscale: int) -> float:
    side = grid.side * downscale
    rows, columns = (
        tile_borders([start * downscale for start in starts], side, length)
        for starts, length in zip((grid.rows, grid.columns), image.shape[:2], strict=True)
    )
    return border_energy(image, rows, columns) / border_energy(reference, rows, columns)


def _period_ratio(image, reference, period: int) -> float:
    """The patches' own grid of 16 pixels left out."""
    return period_power(image, period, finer=16, reference=reference)
