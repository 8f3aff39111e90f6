"""Figures of a restorer on pairs, against bicubic."""

import math
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from vosr_jax.data.validation import Pair
from vosr_jax.evaluation import metrics
from vosr_jax.evaluation.pairs import enlarge

# (pair, seed) -> [H, W, 3] uint8 of the size of pair.hr
Restorer = Callable[[Pair, int], np.ndarray]

FIGURES = (
    "psnr",
    "psnr_y",
    "ssim",
    "ssim_y",
    "lpips",
    "colour_shift",
    "laplacian_ratio",
    "patch_grid_ratio",
)


def bicubic(pair: Pair, seed: int = 0) -> np.ndarray:
    """The baseline: Pillow's bicubic resize of lr."""
    return enlarge(pair.lr, pair.hr.shape[:2])


def evaluate(
    restore: Restorer,
    pairs: Sequence[Pair],
    *,
    samples: int = 1,
    net: str = "alex",
    keep: Callable[[Pair, np.ndarray], None] | None = None,
) -> list[dict[str, Any]]:
    """Restore every pair's lr and compare with its hr.

    Args:
      restore: called with a pair and a seed.
      pairs: what to restore.
      samples: with more than one, further seeds tell a generator from a regressor:
        "lpips_of_mean", of the mean of all samples, and "diversity", the samples' deviation
        (0..255). The other figures are those of seed 0.
      net: LPIPS's network, "alex" or "vgg".
      keep: called with every pair and its result of seed 0.

    Returns:
      One row a pair: "name", FIGURES, "seconds" of the restoration.

    Raises:
      UserError: LPIPS's weights are not installed.
    """
    rows = []
    for pair in pairs:
        started = time.monotonic()
        results = [restore(pair, 0)]
        seconds = time.monotonic() - started
        results += [restore(pair, seed) for seed in range(1, samples)]
        row = {"name": pair.name} | figures(results[0], pair.hr, net) | {"seconds": seconds}
        if samples > 1:
            stack = np.stack(results).astype(np.float32)
            row["lpips_of_mean"] = lpips_distance(stack.mean(0), pair.hr, net)
            row["diversity"] = float(stack.std(0).mean())
        rows.append(row)
        if keep is not None:
            keep(pair, results[0])
    return rows


def figures(image: np.ndarray, truth: np.ndarray, net: str = "alex") -> dict[str, float]:
    """FIGURES of one picture, [H, W, 3] in 0..255."""
    return {
        "psnr": metrics.psnr(image, truth),
        "psnr_y": metrics.psnr(image, truth, channel="y"),
        "ssim": metrics.ssim(image, truth),
        "ssim_y": metrics.ssim(image, truth, channel="y"),
        "lpips": lpips_distance(image, truth, net),
        "colour_shift": metrics.colour_shift(image, truth),
        "laplacian_ratio": metrics.laplacian_ratio(image, truth),
        "patch_grid_ratio": metrics.patch_grid_ratio(image, truth),
    }


def lpips_distance(image: np.ndarray, truth: np.ndarray, net: str = "alex") -> float:
    """LPIPS of one pair of pictures, [H, W, 3] in 0..255."""
    compiled, params = _lpips(net)
    a, b = (np.asarray(x, np.float32)[None] / 127.5 - 1 for x in (image, truth))
    return float(compiled(params, a, b)[0])


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Means over the pictures; an infinite PSNR, of equal pictures, stays infinite."""
    names = [key for key in rows[0] if key != "name"]
    return {name: math.fsum(row[name] for row in rows) / len(rows) for name in names}


@cache
def _lpips(net: str):
    import jax

    from vosr_jax.evaluation.lpips import load_lpips, lpips

    return jax.jit(lpips), load_lpips(net)
