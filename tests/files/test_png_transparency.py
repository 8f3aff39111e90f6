"""The colour that a PNG calls transparent is so at every depth."""

import struct

import numpy as np
import pytest

from tests.files.png_chunks import chunk, make_png
from vosr_jax.files.photo_reading import read_photo


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_transparent_grey_is_clear_and_nothing_else(depth):
    deepest = (1 << depth) - 1
    values = np.random.default_rng(depth).integers(0, deepest + 1, (8, 8, 1))
    key = int(values[3, 3, 0])
    photo = read_photo(make_png(values, depth, 0, chunk(b"tRNS", struct.pack(">H", key))))
    assert photo.grey and photo.bits == (16 if depth == 16 else 8)
    clear = values[..., 0] == key
    np.testing.assert_array_equal(photo.alpha == 0, clear)
    expected = values[..., 0] * ((1 << photo.bits) - 1) // deepest
    np.testing.assert_array_equal(photo.pixels[~clear][:, 0], expected[~clear])


@pytest.mark.parametrize("depth", [8, 16])
def test_the_transparent_colour_is_clear_and_those_near_it_are_not(depth):
    values = np.full((4, 4, 3), 5)
    values[1, 1] = 5, 5, 6
    values[2, 2] = 200, 5, 5
    photo = read_photo(make_png(values, depth, 2, chunk(b"tRNS", struct.pack(">3H", 5, 5, 5))))
    opaque = (1 << depth) - 1
    assert photo.alpha[1, 1] == photo.alpha[2, 2] == opaque and photo.alpha.sum() == 2 * opaque


def test_a_palettes_transparency_is_read():
    values = np.arange(4).reshape(2, 2, 1)
    palette = chunk(b"PLTE", bytes(range(0, 120, 10)))
    photo = read_photo(make_png(values, 2, 3, palette, chunk(b"tRNS", bytes((255, 9, 0)))))
    np.testing.assert_array_equal(photo.alpha, [[255, 9], [0, 255]])
    np.testing.assert_array_equal(photo.pixels[0, 1], (30, 40, 50))


def test_grey_with_alpha_of_sixteen_bits_stays_grey():
    values = np.array([[[1000, 500], [60000, 65535]]])
    photo = read_photo(make_png(values, 16, 4))
    assert photo.grey
    np.testing.assert_array_equal(photo.pixels[..., 0], [[1000, 60000]])
    np.testing.assert_array_equal(photo.alpha, [[500, 65535]])
