"""What our degradation draws against what the recorded one drew, as populations."""

import cv2
import numpy as np
import pytest

from tests.parity import goldens
from tests.parity.test_image_ops_degradation import load
from vosr_jax.data.degradation import RealESRGANSettings, degrade, kernels, resize

# p = 0.001 in the two-sample Kolmogorov-Smirnov test, for many draws.
KS_COEFFICIENT = 1.95


def ks_excess(ours, golden):
    """The KS statistic over its critical value; above 1 the populations differ."""
    ours, golden = np.sort(np.ravel(ours)), np.sort(np.ravel(golden))
    every = np.concatenate([ours, golden])
    distances = [np.searchsorted(x, every, side="right") / x.size for x in (ours, golden)]
    critical = KS_COEFFICIENT * np.sqrt(1 / ours.size + 1 / golden.size)
    return float(np.abs(distances[0] - distances[1]).max() / critical)


def draw_kernels(count, seed):
    rng = np.random.default_rng(seed)
    settings = RealESRGANSettings()
    for _ in range(count):
        yield (
            kernels.sample_kernel(rng, settings.first.blur),
            kernels.sample_kernel(rng, settings.second.blur),
            kernels.sample_final_sinc(rng, settings.final_sinc_probability),
        )


def kernel_numbers(kernel, names):
    """The recorded columns: type, size, sigma_x, sigma_y, theta, beta, cutoff."""
    row = [names.index(kernel.family), 21 if kernel.family == "pulse" else kernel.size]
    bell = kernel.family not in ("sinc", "pulse")
    shaped = kernel.family.startswith(("generalized", "plateau"))
    row += [kernel.sigma_x, kernel.sigma_y, kernel.theta] if bell else [np.nan] * 3
    row.append(kernel.beta if shaped else np.nan)
    row.append(kernel.cutoff if kernel.family == "sinc" else np.nan)
    return row


def test_kernels_are_drawn_as_often_and_with_the_same_parameters():
    described, data = load("kernel_population")
    golden = data["params"]
    names = [name.split(" ")[0] for _, name in sorted(described["type_codes"].items())]
    drawn = draw_kernels(len(golden), seed=0)
    ours = np.array([[kernel_numbers(kernel, names) for kernel in row] for row in drawn])
    worst = 0.0
    for stage in range(3):
        one, other = ours[:, stage], golden[:, stage]
        for code, name in enumerate(names):
            mine, theirs = one[one[:, 0] == code], other[other[:, 0] == code]
            assert abs(len(mine) - len(theirs)) / len(golden) < 0.035, (stage, name)
            if len(theirs) < 50 or name == "pulse":
                continue
            for column in range(1, 7):
                if not np.isnan(theirs[:, column]).any():
                    worst = max(worst, ks_excess(mine[:, column], theirs[:, column]))
                else:
                    assert np.isnan(mine[:, column]).all()
    goldens.record("image_ops/kernel_population", worst, 1.0)


def psnr(one, other):
    return -10 * np.log10(np.mean((one.astype(np.float64) - other) ** 2))


def luma(image):
    return image @ np.array([0.299, 0.587, 0.114])


def gradient(plane):
    return np.abs(np.diff(plane, axis=1)).mean() + np.abs(np.diff(plane, axis=0)).mean()


def laplacian_variance(plane):
    inner = plane[1:-1, 1:-1]
    around = plane[:-2, 1:-1] + plane[2:, 1:-1] + plane[1:-1, :-2] + plane[1:-1, 2:]
    return np.var(4 * inner - around)


def blockiness(plane):
    border = inside = 0.0
    for steps in (np.abs(np.diff(plane, axis=1)).mean(0), np.abs(np.diff(plane, axis=0)).mean(1)):
        at_border = np.arange(len(steps)) % 8 == 7
        border += steps[at_border].mean()
        inside += steps[~at_border].mean()
    return border / inside


def measures(hr, lr, lq):
    """The columns of degradation_population."""
    hr, lq = hr / 255, lq / 255
    small = np.clip(lr, 0, 1)
    up = np.clip(resize.resize_to(small, *hr.shape[:2], "bicubic"), 0, 1)
    grey, grey_lq = luma(small.astype(np.float64)), luma(lq)
    blue, red = 0.564 * (small[..., 2] - grey), 0.713 * (small[..., 0] - grey)
    return [
        psnr(up, hr),
        psnr(lq, hr),
        gradient(grey) / 2,
        laplacian_variance(grey),
        small.mean(),
        small.std(),
        blockiness(grey),
        laplacian_variance(blue) + laplacian_variance(red),
        gradient(grey_lq) / 2,
        laplacian_variance(grey_lq),
        lr.min(),
        lr.max(),
    ]


@pytest.mark.slow
def test_degraded_pictures_are_distributed_as_the_recorded_ones():
    described, data = load("degradation_population")
    cv2.setNumThreads(1)
    draws, scale = described["draws_per_crop"], described["scale"]
    rng = np.random.default_rng(0)
    ours = np.array(
        [
            [measures(hr, *degrade(hr, rng, scale=scale)) for _ in range(draws)]
            for hr in data["crops"]
        ]
    )
    golden = np.concatenate([data["stats_A"], data["stats_B"]], axis=1).astype(np.float64)
    assert ours.shape[2] == golden.shape[2] == len(described["columns"])
    centre = np.median(golden, axis=1, keepdims=True)
    for column, name in enumerate(described["columns"]):
        pooled = ks_excess(ours[..., column], golden[..., column])
        centred = ks_excess((ours - centre)[..., column], (golden - centre)[..., column])
        goldens.record(f"image_ops/population/{name}", max(pooled, centred), 1.0)
