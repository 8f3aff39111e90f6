"""The degradation as a whole: what comes out, and that it can be repeated."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests.data.conftest import picture
from vosr_jax.data.degradation import (
    BlurSettings,
    RealESRGANSettings,
    StageSettings,
    colour,
    degrade,
    jpeg,
    sample_plan,
)
from vosr_jax.data.degradation.noise import eight_bits
from vosr_jax.errors import UserError


@pytest.mark.parametrize("height,width,scale", [(64, 64, 4), (61, 75, 4), (48, 40, 2)])
def test_the_pair_has_the_sizes_and_types_that_training_expects(height, width, scale):
    lr, lq = degrade(picture(0, height, width), np.random.default_rng(0), scale=scale)
    assert lr.shape == (height // scale, width // scale, 3) and lr.dtype == np.float32
    assert lq.shape == (height, width, 3) and lq.dtype == np.uint8


def test_the_same_generator_gives_the_same_pair_and_another_does_not():
    hr = picture(1)
    first, again, other = (degrade(hr, np.random.default_rng(seed))[1] for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_plan_is_a_value_that_can_be_run_twice_and_written_down():
    hr = picture(2)
    for seed in range(20):
        drawn = sample_plan(np.random.default_rng(seed), *hr.shape[:2], RealESRGANSettings())
        assert np.array_equal(drawn.apply(hr)[1], drawn.apply(hr)[1])
        assert np.array_equal(drawn.apply(hr)[1], degrade(hr, np.random.default_rng(seed))[1])
        assert json.loads(json.dumps(drawn.describe()))[-1]["operation"] == "ResizeTo"


def test_lq_is_the_lr_picture_resized_before_clipping_and_rounding():
    hr = np.where(picture(3) > 128, 255, 0).astype(np.uint8)
    beyond = 0
    for seed in range(20):
        drawn = sample_plan(np.random.default_rng(seed), *hr.shape[:2], RealESRGANSettings())
        lr, lq = drawn.apply(hr)
        assert np.array_equal(lq, eight_bits(drawn.resize_back.apply(lr)))
        beyond += not np.array_equal(lq, eight_bits(drawn.resize_back.apply(np.clip(lr, 0, 1))))
    assert beyond


def operations(settings, seeds=range(30)):
    for seed in seeds:
        drawn = sample_plan(np.random.default_rng(seed), 64, 64, settings)
        yield [type(one).__name__ for one in drawn.operations]


def test_without_the_second_stage_there_is_one_jpeg_and_without_both_none():
    for names in operations(RealESRGANSettings(second_probability=0)):
        assert names.count("Jpeg") == 1 and names[-1] == "ResizeTo"
    for names in operations(RealESRGANSettings(first_probability=0)):
        assert names == ["ResizeTo"]


def test_both_final_orders_occur():
    endings = {names[-1] for names in operations(RealESRGANSettings(final_sinc_probability=1))}
    assert endings == {"Jpeg", "Blur"}


def test_grey_and_jitter_change_the_colours_when_asked():
    hr = picture(4)
    grey = RealESRGANSettings(first_probability=0, grey_probability=1)
    lr, _ = degrade(hr, np.random.default_rng(0), grey)
    assert np.ptp(lr, axis=-1).max() == 0
    jitter = RealESRGANSettings(first_probability=0, jitter_probability=1)
    drawn = sample_plan(np.random.default_rng(0), *hr.shape[:2], jitter)
    kinds = [one.kind for one in drawn.operations if isinstance(one, colour.ColourJitter)]
    assert sorted(kinds) == sorted(colour.JITTERS)
    lr, _ = drawn.apply(hr)
    assert 0 <= lr.min() and lr.max() <= 1


def test_every_change_of_colour_is_torchvisions():
    # Recorded from torchvision 0.29 on a picture in [-0.1, 1.1] with grey, black and white in it.
    with np.load(Path(__file__).with_name("torchvision_colour.npz")) as golden:
        image = golden["image"]
        assert np.abs(colour.turn_grey(image) - golden["grey"]).max() < 1e-6
        kinds = set()
        for key in golden.files:
            kind, _, amount = key.partition("/")
            if amount:
                kinds.add(kind)
                ours = colour.jitter(image, kind, float(amount))
                assert ours.dtype == np.float32
                assert np.abs(ours - golden[key]).max() < 1e-5, key
    assert kinds == set(colour.JITTERS)


def test_turning_the_hue_by_a_third_swaps_the_primaries():
    red = np.zeros((2, 2, 3), np.float32)
    red[..., 0] = 1
    green = colour.adjust_hue(red, 1 / 3)
    assert np.allclose(green, [0, 1, 0], atol=1e-5)


def test_the_library_variant_writes_pictures_of_256_levels():
    settings = RealESRGANSettings(second_probability=0, jpeg="libjpeg")
    hr = picture(5)
    drawn = sample_plan(np.random.default_rng(0), *hr.shape[:2], settings)
    image = hr.astype(np.float32) / 255
    for one in drawn.operations:
        image = one.apply(image)
        if isinstance(one, jpeg.Jpeg):
            assert np.array_equal(image, np.rint(image * 255).astype(np.float32) / np.float32(255))
            return
    raise AssertionError("no JPEG in the plan")


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(UserError, match="official"):
        RealESRGANSettings(jpeg="webp")
    with pytest.raises(UserError, match="grey_probability"):
        RealESRGANSettings(grey_probability=2)
    with pytest.raises(UserError, match="weights"):
        RealESRGANSettings(first=StageSettings(blur=BlurSettings(probabilities=(1.0,))))


def test_no_blur_when_its_probability_is_zero():
    quiet = dataclasses.replace(StageSettings(), blur_probability=0)
    settings = RealESRGANSettings(first=quiet, second=quiet, final_sinc_probability=0)
    assert all("Blur" not in names for names in operations(settings))
