"""The constant resize matrices against Pillow and OpenCV."""

import cv2
import numpy as np
import pytest
from PIL import Image

from vosr_jax.models.bicubic import bicubic_matrix

SIZES = [(20, 56), (37, 32), (37, 16), (5, 4), (32, 14), (7, 7)]


@pytest.mark.parametrize(("inputs", "outputs"), SIZES)
def test_the_plain_matrix_is_opencvs_cubic(inputs, outputs):
    line = np.random.default_rng(0).normal(size=(inputs, 1)).astype(np.float32)
    theirs = cv2.resize(line, (1, outputs), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_allclose(bicubic_matrix(inputs, outputs) @ line, theirs, atol=1e-5)


@pytest.mark.parametrize(("inputs", "outputs"), SIZES)
def test_the_antialiased_matrix_is_pillows_cubic(inputs, outputs):
    line = np.random.default_rng(0).normal(size=(inputs, 1)).astype(np.float32)
    theirs = np.asarray(Image.fromarray(line).resize((1, outputs), Image.Resampling.BICUBIC))
    ours = bicubic_matrix(inputs, outputs, antialias=True) @ line
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_a_constant_stays_constant_whatever_the_scale(antialias, offset):
    for inputs, outputs in SIZES:
        rows = bicubic_matrix(inputs, outputs, offset, antialias).sum(1)
        np.testing.assert_allclose(rows, 1.0, atol=1e-5)


def test_the_offset_moves_the_samples():
    assert np.abs(bicubic_matrix(5, 4, 0.1) - bicubic_matrix(5, 4)).max() > 1e-3
