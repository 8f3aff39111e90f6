"""Crops of pictures that are smaller than the crop, and of strips."""

import resource
import time

import numpy as np
import pytest
from PIL import Image

from vosr_jax.data.cropping import EnlargedPicture, at_least, random_crop
from vosr_jax.data.degradation import RealESRGANSettings
from vosr_jax.data.validation import validation_pairs


def noise(seed: int, height: int, width: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("height", "width", "side"),
    [(1, 1, 5), (1, 40, 16), (40, 1, 16), (2, 30, 64), (31, 33, 32), (47, 90, 48), (17, 19, 96)],
)
def test_a_part_is_enlarged_bit_for_bit_as_the_whole(height, width, side):
    image = noise(height * width, height, width)
    whole, enlarged = at_least(image, side)
    part, as_well = at_least(image, side, whole_pixels=0)
    assert enlarged and as_well and isinstance(part, EnlargedPicture)
    assert (part.width, part.height) == whole.size
    expected = np.asarray(whole)
    np.testing.assert_array_equal(part.region(0, 0, part.height, part.width), expected)
    top, left = part.height - side, part.width - side
    np.testing.assert_array_equal(part.region(top, left, side, side), expected[top:, left:])


def test_the_far_end_of_a_strip_is_the_one_that_the_official_loader_takes():
    image = noise(3, 1, 3000)
    whole, part = (at_least(image, 32, whole_pixels=n)[0] for n in (1 << 30, 0))
    for seed in range(8):
        crops = [random_crop(p, 32, np.random.default_rng(seed), True) for p in (whole, part)]
        np.testing.assert_array_equal(*crops)


def test_ordinary_pictures_are_enlarged_by_pillow_itself():
    image = noise(0, 300, 400)
    enlarged, _ = at_least(image, 512)
    assert isinstance(enlarged, Image.Image)
    expected = image.resize((683, 512), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(np.asarray(enlarged), np.asarray(expected))
    large, was_enlarged = at_least(image, 256)
    assert large is image and not was_enlarged


@pytest.mark.parametrize("size", [(16000, 1), (1, 16000)])
def test_a_strip_costs_neither_gigabytes_nor_minutes(size):
    image = noise(1, *reversed(size))
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    picture, enlarged = at_least(image, 512)
    crop = random_crop(picture, 512, np.random.default_rng(0), flip=True)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert enlarged and crop.shape == (512, 512, 3) and crop.std() > 10
    assert grown < 200_000 and time.monotonic() - began < 5


def test_a_strip_makes_validation_pairs_too():
    options = dict(crop_size=64, scale=4, seed=0, degradation=RealESRGANSettings())
    (pair,) = validation_pairs([("strip", np.asarray(noise(2, 1, 16000)))], **options)
    assert pair.hr.shape == (64, 64, 3)
