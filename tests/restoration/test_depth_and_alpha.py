"""Through the upscaler: 16 bits stay 16, metadata stay, soft transparency stays soft."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from tests.restoration.models import tiny_model
from vosr_jax.files.metadata import Metadata
from vosr_jax.files.photo import Photo
from vosr_jax.files.photo_reading import read_photo
from vosr_jax.files.photo_writing import write_photo
from vosr_jax.restoration import colour
from vosr_jax.restoration.upscaler import Upscaler


@pytest.fixture(scope="module")
def unchanging() -> Upscaler:
    """A model that predicts no change."""
    model = tiny_model()
    kernel = model.denoiser.final.linear.kernel
    kernel[...] = 0 * kernel[...]
    return Upscaler(model)


@pytest.mark.parametrize("truncate", [False, True])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_a_ramp_of_a_thousand_levels_keeps_them(unchanging, tmp_path, ending, truncate):
    levels = (20000 + 7 * np.arange(1000)).astype(np.uint16)
    source = Photo(np.broadcast_to(levels.reshape(10, 100, 1), (10, 100, 3)).copy(), grey=True)
    write_photo(source, tmp_path / f"ramp.{ending}")
    model = dataclasses.replace(unchanging.model, truncate=truncate)
    for fix in ("none", "wavelet", "adain"):
        result = Upscaler(model)(
            tmp_path / f"ramp.{ending}", scale=1, colour_fix=fix, output="photo"
        )
        write_photo(result, tmp_path / f"result.{ending}")
        again = read_photo(tmp_path / f"result.{ending}")
        assert again.bits == 16 and again.grey
        assert len(np.unique(again.pixels)) >= 900
        apart = again.pixels.astype(int) - source.pixels
        assert np.abs(apart).max() <= (1 if fix == "none" else 400)


def test_eight_bits_stay_eight_and_metadata_go_along(unchanging):
    metadata = Metadata(xmp=b"<x/>", dpi=(300, 300))
    source = Photo(np.zeros((8, 8, 3), np.uint8), metadata=metadata)
    result = unchanging(source, scale=2, output="photo")
    assert result.bits == 8 and result.metadata == metadata
    assert unchanging(source, scale=2).info["dpi"] == (300, 300)


def _shadow(dtype) -> np.ndarray:
    """A soft shadow below a hard-edged disc."""
    rows, columns = np.mgrid[:64, :64]
    soft = np.exp(-((rows - 40) ** 2 + (columns - 36) ** 2) / (2 * 11**2)) * 0.6
    return np.rint(soft * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_soft_shadow_keeps_its_levels_whatever_the_model_makes_of_it(dtype):
    alpha = _shadow(dtype)
    rng = np.random.default_rng(0)
    size = 256, 256
    blocks = rng.uniform(-60, 60, (16, 16)).repeat(16, 0).repeat(16, 1) / 255
    enlarged = np.asarray(
        Image.fromarray(alpha.astype(np.float32) / np.iinfo(dtype).max).resize(
            size, Image.Resampling.BICUBIC
        )
    )
    drifting = (enlarged + blocks)[..., None].repeat(3, -1)
    kept = colour.alpha_within_source(drifting, alpha) / np.iinfo(dtype).max * 255
    assert np.abs(kept - enlarged * 255).max() <= 4
    means = (kept - enlarged * 255).reshape(16, 16, 16, 16).mean((1, 3))
    assert np.abs(means).max() <= 4


def test_a_hard_edge_may_be_redrawn(unchanging):
    alpha = np.zeros((16, 16), np.uint8)
    alpha[:, 8:] = 255
    sharp = np.zeros((64, 64, 3), np.float32)
    sharp[:, 32:] = 1
    kept = colour.alpha_within_source(sharp, alpha)
    np.testing.assert_array_equal(kept, (sharp[..., 0] * 255).astype(np.uint8))


@pytest.mark.slow
def test_the_shipped_model_keeps_a_soft_shadow():
    alpha = _shadow(np.uint8)
    pixels = np.full((64, 64, 3), 20, np.uint8)
    upscaler = Upscaler.from_pretrained("nano-onestep")
    result = upscaler(np.dstack([pixels, np.maximum(alpha, 1)]))
    enlarged = Image.fromarray(np.maximum(alpha, 1)).resize((256, 256), Image.Resampling.BICUBIC)
    apart = np.asarray(result.getchannel("A"), int) - np.asarray(enlarged)
    assert np.abs(apart).max() <= 4
