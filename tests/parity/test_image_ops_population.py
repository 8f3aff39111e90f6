"""What our degradation draws against what the recorded one drew, as populations."""

import cv2
import numpy as np
import pytest

from tests.parity import goldens
from tests.parity.test_image_ops_degradation import load
from vosr_jax.data.degradation import RealESRGANSettings, degrade, kernels, resize

# One false alarm in a thousand runs of a whole file: p is shared out among its comparisons.
FALSE_ALARMS = 1e-3


def ks_excess(ours, golden, comparisons):
    """The two-sample KS statistic over its critical value; above 1 the populations differ."""
    ours, golden = np.sort(np.ravel(ours)), np.sort(np.ravel(golden))
    every = np.concatenate([ours, golden])
    distances = [np.searchsorted(x, every, side="right") / x.size for x in (ours, golden)]
    coefficient = np.sqrt(-np.log(FALSE_ALARMS / comparisons / 2) / 2)
    critical = coefficient * np.sqrt(1 / ours.size + 1 / golden.size)
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


def same_share(ours, golden):
    """Whether two shares of yes among independent draws can be the same."""
    share = np.concatenate([ours, golden]).mean()
    error = np.sqrt(share * (1 - share) * (1 / len(ours) + 1 / len(golden)))
    return abs(ours.mean() - golden.mean()) <= 4.5 * error


# The parameters of a kernel and the figures of its array, for three kernels of eight types.
_KERNEL_COMPARISONS = 3 * 8 * 10


def test_kernels_are_drawn_as_often_and_with_the_same_parameters():
    described, data = load("kernel_population")
    golden = data["params"]
    names = [name.split(" ")[0] for _, name in sorted(described["type_codes"].items())]
    # More draws than recorded, so that those are the only ones that chance plays with.
    drawn = draw_kernels(2 * len(golden), seed=0)
    ours = np.array([[kernel_numbers(kernel, names) for kernel in row] for row in drawn])
    compared, worst = 0, 0.0
    for stage in range(golden.shape[1]):
        one, other = ours[:, stage], golden[:, stage]
        for code, name in enumerate(names):
            mine, theirs = one[one[:, 0] == code], other[other[:, 0] == code]
            assert same_share(one[:, 0] == code, other[:, 0] == code), (stage, name)
            if len(theirs) < 20 or name == "pulse":
                continue
            for column in range(1, golden.shape[2]):
                if np.isnan(theirs[:, column]).any():
                    assert np.isnan(mine[:, column]).all()
                    continue
                compared += 1
                a, b = mine[:, column], theirs[:, column]
                worst = max(worst, ks_excess(a, b, _KERNEL_COMPARISONS))
                # Half of the plateaus have a beta of exactly 1: the share apart from the rest.
                assert same_share(a == 1, b == 1), (stage, name, column)
                a, b = a[a != 1], b[b != 1]
                if len(b) >= 20:
                    worst = max(worst, ks_excess(a, b, _KERNEL_COMPARISONS))
    assert compared > 10
    goldens.record("image_ops/kernel_population", worst, 1.0)


def kernel_figures(kernel, size):
    """The recorded columns: centre value, sum of squares, second moments along x and y."""
    array = kernels.kernel_array(kernel)
    pad = (size - array.shape[0]) // 2
    array = np.pad(array, pad)
    offset = np.arange(size) - size // 2
    along_x, along_y = array.sum(0) @ offset**2, array.sum(1) @ offset**2
    return [array[size // 2, size // 2], (array**2).sum(), along_x, along_y]


def test_the_kernels_drawn_are_as_wide_and_as_sharp():
    _, data = load("kernel_population")
    golden = data["kernel_stats"]
    size = int(np.nanmax(data["params"][..., 1]))
    drawn = draw_kernels(len(golden), seed=1)
    ours = np.array([[kernel_figures(kernel, size) for kernel in row] for row in drawn])
    worst = 0.0
    for stage in range(golden.shape[1]):
        for column in range(golden.shape[2]):
            # Identities differ in the last bit alone, which KS would take for two populations.
            pair = (np.round(x[:, stage, column], 9) for x in (ours, golden))
            worst = max(worst, ks_excess(*pair, _KERNEL_COMPARISONS))
    goldens.record("image_ops/kernel_population_figures", worst, 1.0)


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
    comparisons = 2 * len(described["columns"])
    for column, name in enumerate(described["columns"]):
        excess = {
            "pooled": ks_excess(ours[..., column], golden[..., column], comparisons),
            "crop_centred": ks_excess(
                (ours - centre)[..., column], (golden - centre)[..., column], comparisons
            ),
        }
        for kind, value in excess.items():
            goldens.record(f"image_ops/population/{name}/{kind}", value, 1.0)
        # A fault in few of the draws moves a mean before it moves the distribution.
        mine, theirs = ((x - centre)[..., column].ravel() for x in (ours, golden))
        error = np.sqrt(mine.var() / mine.size + theirs.var() / theirs.size)
        assert abs(mine.mean() - theirs.mean()) <= 4.5 * error, name
