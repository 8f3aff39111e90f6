"""Filtering an image with a blur kernel."""

import cv2
import numpy as np

from vosr_jax.data.degradation.kernels import Kernel, kernel_array


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
