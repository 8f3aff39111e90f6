"""The picture statistics: what each one notices."""

import cv2
import numpy as np
import pytest

from vosr_jax.metrics import fidelity


@pytest.fixture
def photo() -> np.ndarray:
    noise = np.random.default_rng(0).uniform(0, 255, (96, 128, 3))
    return np.clip(cv2.GaussianBlur(noise, (0, 0), 1.0), 0, 255).astype(np.uint8)


def test_equal_pictures_have_the_perfect_figures(photo):
    assert fidelity.psnr(photo, photo) == float("inf")
    assert fidelity.ssim(photo, photo) == pytest.approx(1.0)
    assert fidelity.colour_shift(photo, photo) == 0.0
    assert fidelity.laplacian_ratio(photo, photo) == fidelity.patch_grid_ratio(photo, photo) == 1.0


def test_a_tint_shows_in_the_colour_shift_and_zero_mean_noise_does_not(photo):
    inside = np.clip(photo, 40, 200).astype(np.float64)
    assert fidelity.colour_shift(inside + [6, 0, 0], inside) == pytest.approx(2.0)
    noise = np.random.default_rng(1).normal(0, 10, inside.shape)
    assert fidelity.colour_shift(inside + noise, inside) < 0.5


def test_two_opposite_local_tints_do_not_cancel(photo):
    inside = np.clip(photo, 40, 200).astype(np.float64)
    tint = np.where(np.arange(128) < 64, 8.0, -8.0)[None, :, None]
    assert fidelity.colour_shift(inside + tint, inside) == pytest.approx(8.0)


def test_blur_lowers_the_laplacian_ratio_and_noise_raises_it(photo):
    assert fidelity.laplacian_ratio(cv2.GaussianBlur(photo, (0, 0), 2.0), photo) < 0.1
    noise = np.random.default_rng(1).normal(0, 30, photo.shape)
    assert fidelity.laplacian_ratio(photo + noise, photo) > 1.5


def test_patches_of_their_own_brightness_show_as_a_grid_of_their_period(photo):
    offsets = np.random.default_rng(2).normal(0, 25, (12, 16, 1)).repeat(8, 0).repeat(8, 1)
    assert fidelity.patch_grid_ratio(photo + offsets, photo) > 1.5
    assert fidelity.patch_grid_ratio(photo + offsets, photo, period=7) < 1.3
    assert 0.8 < fidelity.patch_grid(photo) < 1.25


def test_pictures_of_different_sizes_are_refused(photo):
    with pytest.raises(ValueError, match="alike"):
        fidelity.psnr(photo, photo[1:])
