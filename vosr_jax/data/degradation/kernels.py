"""Blur kernels, and filtering with them.

There are three bell shapes, round or elongated, and the circular low-pass (sinc).
"""

import functools
import math
from dataclasses import dataclass

import cv2
import numpy as np

from vosr_jax.data.degradation.settings import KERNEL_FAMILIES, BlurSettings

KERNEL_SIZES = tuple(range(7, 22, 2))


@dataclass(frozen=True)
class Kernel:
    """Parameters of one kernel.

    Attributes:
      family: one of KERNEL_FAMILIES, "sinc" or "pulse" (leaves the image unchanged).
      size: odd side length in pixels.
      sigma_x, sigma_y: standard deviations in pixels along the kernel's own axes.
      theta: angle of the first axis, radians.
      beta: exponent of the generalized and plateau shapes.
      cutoff: angular frequency of the sinc kernel, radians per pixel.
    """

    family: str
    size: int
    sigma_x: float = 0.0
    sigma_y: float = 0.0
    theta: float = 0.0
    beta: float = 1.0
    cutoff: float = 0.0


def bell_kernel(kernel: Kernel) -> np.ndarray:
    """Compute a Gaussian, generalized Gaussian or plateau kernel.

    With q the squared Mahalanobis distance from the centre, the value is exp(-q/2),
    exp(-q^beta/2) or 1/(1+q^beta), divided by the sum (as in BasicSR's degradations.py).

    Returns:
      [size, size] float64 with sum 1; rows are y, columns x.
    """
    offset = np.arange(kernel.size) - (kernel.size - 1) / 2
    x, y = offset[None, :], offset[:, None]
    if kernel.family.endswith("aniso"):
        cos, sin = math.cos(kernel.theta), math.sin(kernel.theta)
        along = (cos * x + sin * y) / kernel.sigma_x
        across = (cos * y - sin * x) / kernel.sigma_y
        q = along * along + across * across
    else:
        q = (x * x + y * y) / kernel.sigma_x**2
    if kernel.family.startswith("plateau"):
        values = 1 / (1 + q**kernel.beta)
    elif kernel.family.startswith("generalized"):
        values = np.exp(-0.5 * q**kernel.beta)
    else:
        values = np.exp(-0.5 * q)
    return values / values.sum()


@functools.cache
def _distances(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct distances from the centre, and the index of each pixel's distance."""
    offset = np.arange(size) - (size - 1) // 2
    squares, inverse = np.unique(offset[:, None] ** 2 + offset[None, :] ** 2, return_inverse=True)
    return np.sqrt(squares[1:].astype(np.float64)), inverse.reshape(size, size)


_ANGLES = np.arange(48) * (2 * math.pi / 96)


def bessel_j1(x: np.ndarray) -> np.ndarray:
    """Bessel function of the first kind, order 1, for 0 <= x <= 50, exact to about 1e-14.

    It is Bessel's integral over a whole period by the trapezoid rule, which converges exponentially
    there. Half the period is enough because the integrand repeats.
    """
    return np.mean(np.sin(np.multiply.outer(x, np.sin(_ANGLES))) * np.sin(_ANGLES), axis=-1)


def sinc_kernel(size: int, cutoff: float) -> np.ndarray:
    """Compute the circular low-pass cutoff J1(cutoff r) / (2 pi r), at r = 0 cutoff^2 / (4 pi).

    Returns:
      [size, size] float64 with sum 1; it has negative values.
    """
    radius, inverse = _distances(size)
    profile = np.empty(radius.size + 1)
    profile[0] = cutoff**2 / (4 * math.pi)
    profile[1:] = cutoff * bessel_j1(cutoff * radius) / (2 * math.pi * radius)
    values = profile[inverse]
    return values / values.sum()


def kernel_array(kernel: Kernel) -> np.ndarray:
    """The kernel's values: [size, size] float64 with sum 1 (a pulse: [1, 1])."""
    if kernel.family == "pulse":
        return np.ones((1, 1))
    if kernel.family == "sinc":
        return sinc_kernel(kernel.size, kernel.cutoff)
    return bell_kernel(kernel)


def sample_beta(rng: np.random.Generator, beta_range: tuple[float, float]) -> float:
    """Draw beta uniformly from [low, 1] or from [1, high], each half of the time."""
    if rng.random() < 0.5:
        return rng.uniform(beta_range[0], 1)
    return rng.uniform(1, beta_range[1])


def sample_size(rng: np.random.Generator) -> int:
    """Draw an odd side from 7 to 21, uniformly."""
    return KERNEL_SIZES[rng.integers(len(KERNEL_SIZES))]


def sample_kernel(rng: np.random.Generator, settings: BlurSettings) -> Kernel:
    """Draw the kernel of a stage: a sinc kernel or one of the six bell families."""
    size = sample_size(rng)
    if rng.random() < settings.sinc_probability:
        # A small kernel cannot hold a low cutoff.
        lowest = math.pi / 3 if size < 13 else math.pi / 5
        return Kernel("sinc", size, cutoff=rng.uniform(lowest, math.pi))
    weights = np.asarray(settings.probabilities)
    position = np.searchsorted(np.cumsum(weights), rng.random() * weights.sum(), side="right")
    family = KERNEL_FAMILIES[min(position, len(KERNEL_FAMILIES) - 1)]
    sigma_x = rng.uniform(*settings.sigma)
    sigma_y, theta = sigma_x, 0.0
    if family.endswith("aniso"):
        sigma_y, theta = rng.uniform(*settings.sigma), rng.uniform(-math.pi, math.pi)
    beta = 1.0
    if family.startswith("generalized"):
        beta = sample_beta(rng, settings.generalized_beta)
    elif family.startswith("plateau"):
        beta = sample_beta(rng, settings.plateau_beta)
    return Kernel(family, size, sigma_x, sigma_y, theta, beta)


def sample_final_sinc(rng: np.random.Generator, probability: float) -> Kernel:
    """Draw the final filter: a sinc kernel, or a pulse that changes nothing."""
    if rng.random() >= probability:
        return Kernel("pulse", 1)
    return Kernel("sinc", sample_size(rng), cutoff=rng.uniform(math.pi / 3, math.pi))


def filter2d(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Correlate all channels with one kernel; the border is reflected without its edge pixel.

    Args:
      image: [H, W, 3] float32.
      kernel: [k, k] with odd k.

    Returns:
      [H, W, 3] float32, not clipped.
    """
    return cv2.filter2D(image, -1, kernel.astype(np.float32), borderType=cv2.BORDER_REFLECT_101)


def blur(image: np.ndarray, kernel: Kernel) -> np.ndarray:
    """Apply a kernel given by its parameters: [H, W, 3] float32 -> the same, not clipped."""
    if kernel.family == "pulse":
        return image
    if kernel.family == "iso":
        # A round Gaussian is separable: 2k instead of k^2 products per pixel.
        offset = np.arange(kernel.size) - kernel.size // 2
        line = np.exp(-0.5 * (offset / kernel.sigma_x) ** 2)
        line = (line / line.sum()).astype(np.float32)
        return cv2.sepFilter2D(image, -1, line, line, borderType=cv2.BORDER_REFLECT_101)
    return filter2d(image, kernel_array(kernel))


@dataclass(frozen=True)
class Blur:
    """Filter with a kernel."""

    kernel: Kernel

    def apply(self, image: np.ndarray) -> np.ndarray:
        return blur(image, self.kernel)
