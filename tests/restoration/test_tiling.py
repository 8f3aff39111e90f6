"""Tiles cover the latent, all of one shape."""

import numpy as np
import pytest

from vosr_jax.restoration.tiling import gaussian_weights, plan_tiles


@pytest.mark.parametrize("latent", [(65, 64), (200, 130), (64, 300), (10, 77)])
def test_every_latent_pixel_is_covered_by_tiles_inside(latent):
    grid = plan_tiles(latent, 512, 64, 8, 2)
    covered = np.zeros(latent, int)
    for row, column in grid.starts:
        assert row >= 0 and column >= 0
        assert row + grid.side <= latent[0] and column + grid.side <= latent[1]
        covered[row : row + grid.side, column : column + grid.side] += 1
    assert covered.min() >= 1


def test_a_latent_that_fits_into_one_tile_has_no_tiles():
    assert plan_tiles((64, 64), 512, 64, 8, 2) is None
    assert plan_tiles((500, 500), 0, 64, 8, 2) is None


def test_weights_are_symmetric_and_peak_in_the_middle():
    weights = gaussian_weights(9, 12)
    np.testing.assert_allclose(weights, weights[::-1, ::-1], rtol=1e-6)
    assert weights.argmax() // 12 == 4 and weights.min() > 0
