"""The shipped default model leaves plain areas plain."""

import numpy as np
import pytest
from PIL import Image

from vosr_jax.restoration.upscaler import Upscaler

_RAMPS = {
    "grey": ((100, 100, 100), (140, 140, 140)),
    "all greys": ((0, 0, 0), (255, 255, 255)),
    "skin": ((92, 52, 36), (250, 216, 190)),
    "sky": ((32, 76, 140), (206, 228, 246)),
}


@pytest.fixture(scope="module")
def upscaler() -> Upscaler:
    return Upscaler.from_pretrained("nano-onestep")


@pytest.mark.parametrize("name", _RAMPS)
def test_a_ramp_gets_no_texture(upscaler, name):
    first, last = np.array(_RAMPS[name])
    share = np.linspace(0, 1, 128)[None, :, None]
    columns = np.rint(first * (1 - share) + last * share).astype(np.uint8)
    ramp = Image.fromarray(np.repeat(columns, 24, 0))
    made = np.asarray(upscaler(ramp), float)[8:-8]
    # A column of the result is one level.
    assert made.std(axis=0).max() <= 2
    shift = np.abs(made.mean((0, 1)) - np.asarray(ramp, float).mean((0, 1))).max()
    assert shift <= 1
