"""Metrics that compare a restored image with the ground truth, in numpy.

Images are [H, W, 3] RGB in 0..255, uint8 or float. PSNR and SSIM follow BasicSR's conventions:
`crop` pixels are cut from every side first, and "y" is BT.601 luma in the limited range 16..235.
"y_full" is the same luma in 0..255, as in pyiqa; its PSNR is 1.3 dB lower.
"""

import cv2
import numpy as np

_SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5
_EDGE_OFFSET = 170.0
_FULL_LUMA = np.array([0.299, 0.587, 0.114])
_LIMITED_LUMA = np.array([65.481, 128.553, 24.966]) / 255


def psnr(image: np.ndarray, truth: np.ndarray, crop: int = 0, channel: str = "rgb") -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal images.

    Args:
      image, truth: [H, W, 3] in 0..255.
      crop: pixels cut from every side.
      channel: "rgb" (error over all three), "y" or "y_full".

    Raises:
      ValueError: shapes differ, or the channel is unknown.
    """
    a, b = _prepare(image, truth, crop, channel)
    error = np.mean((a - b) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255.0**2 / error))


def ssim(image: np.ndarray, truth: np.ndarray, crop: int = 0, channel: str = "rgb") -> float:
    """Structural similarity: 11x11 Gaussian window without padding, mean over the channels.

    Arguments as in `psnr`; sides of at least 11 after the crop.
    """
    a, b = _prepare(image, truth, crop, channel)
    if min(a.shape[:2]) < _SSIM_WINDOW:
        raise ValueError(f"SSIM needs sides of at least {_SSIM_WINDOW} pixels, not {a.shape[:2]}")
    kernel = cv2.getGaussianKernel(_SSIM_WINDOW, _SSIM_SIGMA)
    edge = _SSIM_WINDOW // 2

    def local_mean(x: np.ndarray) -> np.ndarray:
        blurred = cv2.sepFilter2D(x, cv2.CV_64F, kernel, kernel)
        return blurred[edge:-edge, edge:-edge]

    mean_a, mean_b = local_mean(a), local_mean(b)
    variance_a = local_mean(a * a) - mean_a**2
    variance_b = local_mean(b * b) - mean_b**2
    covariance = local_mean(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    similarity /= (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    return float(similarity.mean())


def edge_similarity(image: np.ndarray, truth: np.ndarray) -> float:
    """Similarity of the edges, 0 to 1: the mean similarity of Sobel gradients over the pixels.

    It is (2 a b + c) / (a^2 + b^2 + c) of the gradients' lengths a, b on the luma in 0..255. The
    constant c = 170 is that of gradient magnitude similarity (arXiv 1308.3052), which uses Prewitt
    gradients.
    """
    a, b = (_sobel(picture) for picture in _prepare(image, truth, 0, "y_full"))
    return float(np.mean((2 * a * b + _EDGE_OFFSET) / (a * a + b * b + _EDGE_OFFSET)))


def _sobel(luma: np.ndarray) -> np.ndarray:
    """Length of the gradient, in grey levels per pixel."""
    across, down = (cv2.Sobel(luma, cv2.CV_64F, *order, ksize=3) / 8 for order in ((1, 0), (0, 1)))
    return np.hypot(across, down)


def colour_shift(image: np.ndarray, truth: np.ndarray, window: int = 32) -> float:
    """Mean absolute difference of local colour: means over window x window, in 0..255.

    A remainder at the right and lower edge is ignored; a side below `window` is one window.
    """
    a, b = _prepare(image, truth, 0, "rgb")
    return float(np.abs(_block_means(a, window) - _block_means(b, window)).mean())


def laplacian_variance(image: np.ndarray) -> float:
    """Sharpness: variance of the 4-neighbour Laplacian of the luma (0..255), without the edge."""
    y = np.asarray(image, np.float64) @ _FULL_LUMA
    around = y[:-2, 1:-1] + y[2:, 1:-1] + y[1:-1, :-2] + y[1:-1, 2:]
    return float((4 * y[1:-1, 1:-1] - around).var())


def laplacian_ratio(image: np.ndarray, truth: np.ndarray) -> float:
    """Laplacian variance over the truth's: below 1 means blurred, above 1 too sharp or noisy."""
    return laplacian_variance(image) / max(laplacian_variance(truth), 1e-9)


def patch_grid(image: np.ndarray, period: int = 8) -> float:
    """Ratio of squared luma steps across the borders of period x period patches to those elsewhere.

    About 1 for a photo; above 1 the patch grid is visible. An image enlarged by a divisor of the
    period, for example bicubically, is above 1 through its interpolation alone.
    """
    y = np.asarray(image, np.float64) @ _FULL_LUMA
    borders, inside = [], []
    for axis in (0, 1):
        steps = np.moveaxis(np.diff(y, axis=axis) ** 2, axis, 0)
        at_border = np.arange(1, y.shape[axis]) % period == 0
        borders.append(steps[at_border].ravel())
        inside.append(steps[~at_border].ravel())
    border, elsewhere = np.concatenate(borders), np.concatenate(inside)
    if border.size == 0 or elsewhere.mean() == 0:
        return 1.0
    return float(border.mean() / elsewhere.mean())


def patch_grid_ratio(image: np.ndarray, truth: np.ndarray, period: int = 8) -> float:
    """`patch_grid` over the truth's: 1 means that no grid was added."""
    return patch_grid(image, period) / max(patch_grid(truth, period), 1e-9)


def _prepare(
    image: np.ndarray, truth: np.ndarray, crop: int, channel: str
) -> tuple[np.ndarray, np.ndarray]:
    if image.shape != truth.shape or image.ndim != 3:
        raise ValueError(f"pictures must be [H, W, 3] alike, not {image.shape} and {truth.shape}")
    if channel not in ("rgb", "y", "y_full"):
        raise ValueError(f"channel must be 'rgb', 'y' or 'y_full', not '{channel}'")
    pair = []
    for picture in (image, truth):
        inner = picture[crop : picture.shape[0] - crop, crop : picture.shape[1] - crop]
        values = np.asarray(inner, np.float64)
        if channel == "y":
            values = values @ _LIMITED_LUMA + 16
        elif channel == "y_full":
            values = values @ _FULL_LUMA
        pair.append(values)
    return pair[0], pair[1]


def _block_means(image: np.ndarray, window: int) -> np.ndarray:
    height, width, channels = image.shape
    rows, columns = min(window, height), min(window, width)
    whole = image[: height // rows * rows, : width // columns * columns]
    blocks = whole.reshape(height // rows, rows, width // columns, columns, channels)
    return blocks.mean(axis=(1, 3))
