"""Tiles cover the latent, all of one shape."""

import numpy as np
import pytest

from vosr_jax.restoration.tiled.latent import gaussian_weights, plan_tiles


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


def test_a_second_pass_lies_between_the_first_ones_tiles():
    grid = plan_tiles((40, 64), 16, 0, 1, 2, 2)
    assert grid is not None
    first = [[row, column] for row in (0, 14, 24) for column in (0, 14, 28, 42, 48)]
    between = [[row, column] for row in (7, 19) for column in (7, 21, 35, 45)]
    assert grid.starts.tolist() == first + between
    narrow = plan_tiles((16, 40), 16, 0, 1, 2, 2)
    assert narrow is not None and narrow.starts.tolist()[-2:] == [[0, 7], [0, 19]]
