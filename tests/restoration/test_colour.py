"""What the colour fixes keep and what they change."""

import numpy as np

from vosr_jax.files.photo import to_uint8
from vosr_jax.restoration import colour


def _picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.3, 0.6, (40, 50, 3)).astype(np.float32)


def test_adain_gives_the_sources_mean_and_deviation():
    fixed, source = colour.adain(_picture(0) * 0.8 + 0.1, _picture(1)), _picture(1)
    np.testing.assert_allclose(fixed.mean((0, 1)), source.mean((0, 1)), atol=1e-3)
    np.testing.assert_allclose(fixed.std((0, 1)), source.std((0, 1)), atol=1e-3)


def test_wavelet_removes_a_tint_and_keeps_detail():
    picture = _picture(0)
    fixed = colour.wavelet(picture + np.float32([0.1, 0, -0.1]), picture)
    np.testing.assert_allclose(fixed, picture, atol=1e-5)


def test_no_fix_only_clips():
    picture = _picture(0) * 3 - 0.5
    np.testing.assert_array_equal(colour.fix_colour("none", picture, picture), picture.clip(0, 1))


def test_rounding_is_unbiased_and_truncation_is_the_official_way():
    picture = np.float32([[[0.0, 100.6 / 255, 1.2]]])
    assert to_uint8(picture).tolist() == [[[0, 101, 255]]]
    assert to_uint8(picture, truncate=True).tolist() == [[[0, 100, 255]]]
