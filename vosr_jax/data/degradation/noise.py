"""Gaussian and Poisson noise, per channel or equal in all channels."""

from dataclasses import dataclass

import cv2
import numpy as np

# Weights of torchvision's rgb_to_grayscale, which the original uses for grey noise.
GREY_WEIGHTS = np.array([0.2989, 0.587, 0.114], np.float32)


def greyscale(image: np.ndarray) -> np.ndarray:
    """Convert [H, W, 3] to [H, W]: 0.2989 R + 0.587 G + 0.114 B."""
    return cv2.transform(image, GREY_WEIGHTS[None])


def add_gaussian_noise(image: np.ndarray, sigma: float, normal: np.ndarray) -> np.ndarray:
    """Compute clip(image + normal * sigma / 255).

    Args:
      image: [H, W, 3] float32, nominally in [0, 1].
      sigma: standard deviation in grey levels of 255.
      normal: standard normal draws, [H, W, 3], or [H, W] for grey noise.

    Returns:
      [H, W, 3] float32 in [0, 1].
    """
    normal = normal[..., None] if normal.ndim == 2 else normal
    noisy = normal * np.float32(sigma / 255)
    noisy = noisy + image
    return np.clip(noisy, 0, 1, out=noisy)


def eight_bits(image: np.ndarray) -> np.ndarray:
    """Round to 256 grey levels: [0, 1] float32 of any shape -> the same shape uint8."""
    # convertScaleAbs takes absolute values of negative ones, so clip before converting.
    return np.rint(np.clip(image * np.float32(255), 0, 255)).astype(np.uint8)


def poisson_levels(levels: np.ndarray) -> int:
    """The photon count of white: 2^ceil(log2(number of distinct grey levels)).

    Args:
      levels: uint8 of any shape; all channels are counted together.
    """
    distinct = int(np.count_nonzero(np.bincount(levels.ravel(), minlength=256)))
    return 1 << (distinct - 1).bit_length()


def poisson_rate(image: np.ndarray, grey: bool) -> tuple[np.ndarray, int]:
    """Compute the image that Poisson noise is drawn for, and the photon count of white.

    Args:
      image: [H, W, 3] float32.
      grey: draw for the grey image instead.

    Returns:
      (rounded image in [0, 1], [H, W, 3] or [H, W] float32; the count).
      The expected photon count of a pixel is their product.
    """
    levels = eight_bits(greyscale(image) if grey else image)
    return levels.astype(np.float32) / np.float32(255), poisson_levels(levels)


def add_poisson_noise(
    image: np.ndarray, scale: float, rounded: np.ndarray, white: int, counts: np.ndarray
) -> np.ndarray:
    """Compute clip(image + scale * (counts / white - rounded)).

    Args:
      image: [H, W, 3] float32.
      scale: factor on the noise.
      rounded, white: what poisson_rate returned.
      counts: Poisson draws with mean rounded * white, of rounded's shape.

    Returns:
      [H, W, 3] float32 in [0, 1].
    """
    noise = counts.astype(np.float32)
    noise /= np.float32(white)
    noise -= rounded
    noise *= np.float32(scale)
    noisy = image + (noise[..., None] if noise.ndim == 2 else noise)
    return np.clip(noisy, 0, 1, out=noisy)


def draw_gaussian_noise(image: np.ndarray, sigma: float, grey: bool, seed: int) -> np.ndarray:
    """Add Gaussian noise drawn from a seed; see add_gaussian_noise."""
    shape = image.shape[:2] if grey else image.shape
    normal = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    return add_gaussian_noise(image, sigma, normal)


def draw_poisson_noise(image: np.ndarray, scale: float, grey: bool, seed: int) -> np.ndarray:
    """Add Poisson noise drawn from a seed; see add_poisson_noise."""
    rounded, white = poisson_rate(image, grey)
    counts = np.random.default_rng(seed).poisson(rounded * np.float32(white))
    return add_poisson_noise(image, scale, rounded, white, counts)


@dataclass(frozen=True)
class GaussianNoise:
    """Gaussian noise; sigma in grey levels of 255."""

    sigma: float
    grey: bool
    seed: int

    def apply(self, image: np.ndarray) -> np.ndarray:
        return draw_gaussian_noise(image, self.sigma, self.grey, self.seed)


@dataclass(frozen=True)
class PoissonNoise:
    """Poisson noise, multiplied by scale."""

    scale: float
    grey: bool
    seed: int

    def apply(self, image: np.ndarray) -> np.ndarray:
        return draw_poisson_noise(image, self.scale, self.grey, self.seed)
