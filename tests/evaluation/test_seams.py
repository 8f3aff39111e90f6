"""Seams are found where they are, and a real photograph restored in tiles has none."""

import numpy as np
import pytest
from PIL import Image

from vosr_jax.evaluation.seams import border_energy, period_power, tile_borders
from vosr_jax.restoration import tiled_network, upscaler
from vosr_jax.restoration.tiling import TileGrid, plan_tiles

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
    photograph = Image.open("assets/heldout/coffee.png").convert("RGB").crop((0, 0, 256, 192))
    small = photograph.resize((64, 48), Image.Resampling.BICUBIC)
    nano = upscaler.Upscaler.from_pretrained("nano")
    whole = np.asarray(nano(small, tile_size=0))

    tiled = np.asarray(nano(small, tile_size=64, tile_overlap=32))
    model = nano.model
    latent, downscale = (96, 128), model.autoencoder.downscale
    grid = plan_tiles(latent, 64, 32, downscale, model.denoiser.settings.patch_size)
    assert grid is not None and len(grid.starts) == 35
    assert _border_ratio(tiled, whole, grid, downscale) < _BOUND
    assert _period_ratio(tiled, whole, 32) < _BOUND

    plain = TileGrid(32, (0, 32, 64), (0, 32, 64, 96))
    monkeypatch.setattr(upscaler, "plan_tiles", lambda *_: plain)
    monkeypatch.setattr(tiled_network, "gaussian_weights", lambda *size: np.ones(size, np.float32))
    seams = np.asarray(nano(small, tile_size=64))
    assert _border_ratio(seams, whole, plain, downscale) > 3 * _BOUND
    assert _period_ratio(seams, whole, 64) > _BOUND


def _border_ratio(image, reference, grid: TileGrid, downscale: int) -> float:
    side = grid.side * downscale
    rows, columns = (
        tile_borders([start * downscale for start in starts], side, length)
        for starts, length in zip((grid.rows, grid.columns), image.shape[:2], strict=True)
    )
    return border_energy(image, rows, columns) / border_energy(reference, rows, columns)


def _period_ratio(image, reference, period: int) -> float:
    """The patches' own grid of 8 pixels left out."""
    return period_power(image, period, finer=8, reference=reference)
