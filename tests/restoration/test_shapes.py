"""Sizes at which pictures are computed."""

import numpy as np

from vosr_jax.restoration.inputs import computed_side, mirror


def test_exact_sides_are_the_next_multiple():
    assert [computed_side(side, 16) for side in (1, 16, 17, 600)] == [16, 16, 32, 608]
    assert computed_side(5, 16, shortest=128) == 128


def test_what_is_added_mirrors_the_edge():
    row = np.arange(4.0).reshape(1, 4, 1)
    grown = mirror(row, (2, 9))[..., 0]
    np.testing.assert_array_equal(grown, [[0, 1, 2, 3, 2, 1, 0, 1, 2]] * 2)
