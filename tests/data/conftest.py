"""Small folders of pictures."""

import io

import numpy as np
import pytest
from PIL import Image


def picture(seed, height=56, width=72):
    """A smooth picture with edges, different for every seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def encoded(pixels, kind="PNG", **options):
    """The content of a picture file; pixels are an array or a Pillow image."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def photographs(tmp_path):
    """A folder of 19 readable pictures and one cut short (5%)."""
    folder = tmp_path / "photographs"
    (folder / "deeper").mkdir(parents=True)
    for number in range(19):
        place = folder / "deeper" if number % 3 else folder
        Image.fromarray(picture(number)).save(place / f"picture{number:02d}.png")
    whole = (folder / "picture00.png").read_bytes()
    (folder / "picture99.png").write_bytes(whole[: len(whole) // 2])
    return folder
