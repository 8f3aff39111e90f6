"""NIQE (Mittal, Soundararajan and Bovik, 2013): distance from the statistics of pristine photos.

It follows BasicSR: limited-range luma, rounded, whole blocks of 96 px at two scales. The statistics
of pristine photos are the LIVE laboratory's. They come from the package basicsr
(`pip install --no-deps basicsr`) or from the file that VOSR_NIQE_PARAMETERS names.
"""

import importlib.util
import math
import os
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from scipy.special import gamma

from vosr_jax.errors import UserError

VARIABLE = "VOSR_NIQE_PARAMETERS"
BLOCK = 96
_WINDOW, _SIGMA = 7, 7 / 6
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
_LUMA = np.array([65.481, 128.553, 24.966], np.float32)
# Parameter of MATLAB's cubic kernel.
_A = -0.5


def niqe(image: np.ndarray, crop: int = 0) -> float:
    """NIQE of an image; lower is more natural.

    Args:
      image: [H, W, 3] RGB in 0..255; sides of at least 96 after the crop.
      crop: pixels cut from every side.

    Raises:
      UserError: the statistics are not installed.
      ValueError: the image is too small.
    """
    mean, covariance = load_parameters()
    features = np.concatenate(niqe_features(image, crop), axis=1)
    whole = features[~np.isnan(features).any(1)]
    difference = mean.ravel() - np.nanmean(features, axis=0)
    inverse = np.linalg.pinv((covariance + np.cov(whole, rowvar=False)) / 2)
    return float(np.sqrt(difference @ inverse @ difference))


def niqe_features(image: np.ndarray, crop: int = 0) -> np.ndarray:
    """Statistics [2 scales, blocks, 18]; blocks are in column-major order.

    Arguments and errors as in `niqe`.
    """
    inner = image[crop : image.shape[0] - crop, crop : image.shape[1] - crop]
    luma = np.round(np.asarray(inner, np.float32) / np.float32(255) @ _LUMA + np.float32(16))
    rows, columns = (side // BLOCK for side in luma.shape)
    if not rows or not columns:
        raise ValueError(f"NIQE needs sides of at least {BLOCK} pixels, not {luma.shape}")
    luma = luma[: rows * BLOCK, : columns * BLOCK]
    scales = []
    for side in (BLOCK, BLOCK // 2):
        normalized = _normalized(luma)
        blocks = [
            normalized[i * side : (i + 1) * side, j * side : (j + 1) * side]
            for j in range(columns)
            for i in range(rows)
        ]
        scales.append([_block_features(block) for block in blocks])
        luma = (imresize(luma / 255, 0.5) * 255).astype(np.float32)
    return np.array(scales)


@cache
def load_parameters() -> tuple[np.ndarray, np.ndarray]:
    """Load the mean [36] and covariance [36, 36] of pristine photos' features.

    Raises:
      UserError: the file is missing or invalid.
    """
    path = parameters_file()
    if path is None:
        raise UserError(
            f"NIQE needs basicsr's statistics: pip install --no-deps basicsr, or name its "
            f"niqe_pris_params.npz in {VARIABLE}"
        )
    try:
        with np.load(path, allow_pickle=False) as arrays:
            mean, covariance = arrays["mu_pris_param"].ravel(), arrays["cov_pris_param"]
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path} can't be read as NIQE's statistics ({error})") from error
    if mean.shape != (36,) or covariance.shape != (36, 36):
        raise UserError(f"{path} holds other statistics than NIQE's 36 features")
    return mean, covariance


def parameters_file() -> Path | None:
    """Path of the statistics; None if they are not installed."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    spec = importlib.util.find_spec("basicsr")
    folders = spec.submodule_search_locations if spec is not None else None
    path = Path(next(iter(folders or ["."]))) / "metrics" / "niqe_pris_params.npz"
    return path if path.is_file() else None


def _normalized(luma: np.ndarray) -> np.ndarray:
    """Difference from the local mean, divided by the local deviation plus one."""
    line = cv2.getGaussianKernel(_WINDOW, _SIGMA)
    kernel = (line @ line.T).astype(np.float64)

    def local_mean(x: np.ndarray) -> np.ndarray:
        return cv2.filter2D(x, -1, kernel, borderType=cv2.BORDER_REPLICATE)

    mean = local_mean(luma)
    deviation = np.sqrt(np.abs(local_mean(np.square(luma)) - np.square(mean)))
    return (luma - mean) / (deviation + 1)


def _block_features(block: np.ndarray) -> list[float]:
    shape, left, right = _fit(block)
    features = [shape, (left + right) / 2]
    for shift in _NEIGHBOURS:
        shape, left, right = _fit(block * np.roll(block, shift, (0, 1)))
        mean = (right - left) * (math.gamma(2 / shape) / math.gamma(1 / shape))
        features += [shape, mean, left, right]
    return features


@cache
def _shapes() -> tuple[np.ndarray, np.ndarray]:
    shapes = np.arange(0.2, 10.001, 0.001)
    inverse = 1 / shapes
    return shapes, np.square(gamma(inverse * 2)) / (gamma(inverse) * gamma(inverse * 3))


def _fit(values: np.ndarray) -> tuple[float, float, float]:
    """(shape, left scale, right scale) of an asymmetric generalized Gaussian, by moments."""
    values = values.ravel()
    with np.errstate(invalid="ignore", divide="ignore"):
        left = np.sqrt(np.mean(values[values < 0] ** 2)) if (values < 0).any() else np.nan
        right = np.sqrt(np.mean(values[values > 0] ** 2)) if (values > 0).any() else np.nan
        ratio = left / right
        moment = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
        wanted = moment * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shapes, moments = _shapes()
    shape = float(shapes[np.argmin((moments - wanted) ** 2)])
    scale = math.sqrt(math.gamma(1 / shape) / math.gamma(3 / shape))
    return shape, float(left * scale), float(right * scale)


def imresize(image: np.ndarray, scale: float, *, antialiasing: bool = True) -> np.ndarray:
    """Resize by a factor as MATLAB's imresize; padding mirrors the image, edge pixels included.

    Args:
      image: [H, W] or [H, W, C], float.
      scale: of both sides, which become ceil(side * scale).
      antialiasing: whether a reduction widens the kernel to average over skipped pixels.

    Returns:
      The resized image, float64.
    """
    down, across = (_matrix(side, scale, antialiasing) for side in image.shape[:2])
    return np.einsum("oh,hw...,pw->op...", down, image.astype(np.float64), across, optimize=True)


def _matrix(side: int, scale: float, antialiasing: bool) -> np.ndarray:
    """Weights [ceil(side * scale), side] of the input pixels in each output pixel."""
    outputs = math.ceil(side * scale)
    width = 1 / scale if antialiasing and scale < 1 else 1.0
    centre = (np.arange(outputs) + 0.5) / scale - 0.5
    reach = math.ceil(4 * width) + 2
    taps = np.floor(centre - 2 * width).astype(int)[:, None] + np.arange(reach)
    weights = _cubic((centre[:, None] - taps) / width)
    weights /= weights.sum(1, keepdims=True)
    # Mirrored at the outer side of the edge pixels: ... 1 0 | 0 1 ...
    folded = taps % (2 * side)
    folded = np.where(folded < side, folded, 2 * side - 1 - folded)
    matrix = np.zeros((outputs, side))
    np.add.at(matrix, (np.arange(outputs)[:, None], folded), weights)
    return matrix


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel."""
    x = np.abs(x)
    near = (_A + 2) * x**3 - (_A + 3) * x**2 + 1
    far = _A * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
