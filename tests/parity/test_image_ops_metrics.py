"""PSNR and SSIM against BasicSR's values."""

import math

from tests.parity import goldens
from vosr_jax.metrics import fidelity


def _pairs():
    folder = goldens.folder("image_ops")
    images = goldens.arrays(folder / "metrics.npz")
    for pair in goldens.read_json(folder / "metrics.json")["pairs"]:
        yield pair, images[pair["img"]], images[pair["gt"]]


def _values(pair, name):
    for key, value in pair.items():
        parts = key.split("_")
        if len(parts) == 3 and parts[0] == name and parts[2].startswith("crop"):
            yield key, parts[1], int(parts[2].removeprefix("crop")), float(value)


def test_psnr_is_basicsrs():
    for pair, image, truth in _pairs():
        for key, channel, crop, value in _values(pair, "psnr"):
            ours = fidelity.psnr(image, truth, crop, channel)
            same = math.isinf(ours) and math.isinf(value)
            error = 0.0 if same else abs(ours - value)
            goldens.record(f"image_ops/metrics/{pair['pair']}/{key}", error, 1e-4)


def test_ssim_is_basicsrs():
    for pair, image, truth in _pairs():
        for key, channel, crop, value in _values(pair, "ssim"):
            error = abs(fidelity.ssim(image, truth, crop, channel) - value)
            goldens.record(f"image_ops/metrics/{pair['pair']}/{key}", error, 1e-6)
