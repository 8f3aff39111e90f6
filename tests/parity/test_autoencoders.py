"""Autoencoders against the official implementations, whichever the folder holds."""

import jax
import numpy as np
import pytest

from tests.parity import goldens
from vosr_jax.models.autoencoders.qwen import QwenAutoencoder
from vosr_jax.weights import load_autoencoder

TOLERANCE = 2e-5
VARIANTS = sorted(p.name for p in (goldens.ROOT / "autoencoders").glob("*") if p.is_dir())


def _load(folder):
    """The autoencoder of a folder: a light decoder's file, or a folder with a config."""
    files = sorted(folder.glob("*.pth"))
    return load_autoencoder(files[0] if files else folder)[0]


def _arrays(folder):
    """A folder's arrays; the one with the old names of sd2's weights shares sd2's."""
    own = folder / "io.npz"
    return goldens.arrays(own if own.is_file() else folder.parent / "sd2" / "io.npz")


@pytest.mark.parametrize("variant", VARIANTS or ["missing"])
def test_moments_and_pictures_are_the_official_ones(variant):
    folder = goldens.folder("autoencoders") / variant
    arrays, case = _arrays(folder), f"autoencoders/{variant}"
    model = _load(folder)
    latent = goldens.nhwc(arrays["latent"])
    normalize = (0.0, 1.0)
    if isinstance(model, QwenAutoencoder):
        normalize = np.asarray(model.settings.latents_mean), np.asarray(model.settings.latents_std)
    if "image" in arrays:
        mean, std = jax.jit(lambda m, x: m.moments(x))(model, goldens.nhwc(arrays["image"]))
        golden = goldens.nhwc(arrays.get("normalized_mean", arrays["mean"]))
        goldens.check(f"{case}/mean", np.asarray(mean), golden, TOLERANCE)
        golden = np.exp(0.5 * goldens.nhwc(arrays["logvar"])) / normalize[1]
        goldens.check(f"{case}/std", np.asarray(std), golden, TOLERANCE)
    latent = ((latent - normalize[0]) / normalize[1]).astype(np.float32)
    decoded = np.asarray(jax.jit(lambda m, x: m.decode(x))(model, latent))
    goldens.check(f"{case}/decoded", decoded, goldens.nhwc(arrays["decoded"]), TOLERANCE)
