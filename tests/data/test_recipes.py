"""Recipes of the degradation beside the official one, and their mixture."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from tests.data.conftest import picture
from vosr_jax.config import validate
from vosr_jax.data.degradation import (
    DegradationPlan,
    DegradationSettings,
    RealESRGANSettings,
    degrade,
    jpeg,
    resize,
    sample_plan,
)
from vosr_jax.data.degradation.noise import eight_bits
from vosr_jax.data.degradation.settings import CLEAN, MILD
from vosr_jax.errors import UserError

MIXED = DegradationSettings("official:0.5,mild:0.38,clean:0.12")


def drawn(settings, seed: int, height: int = 64, width: int = 64) -> DegradationPlan:
    return sample_plan(np.random.default_rng(seed), height, width, settings)


def test_a_mixture_draws_each_recipe_as_often_as_its_weight_says():
    counts = Counter(drawn(MIXED, seed).recipe for seed in range(2000))
    for recipe, share in MIXED.shares().items():
        assert abs(counts[recipe] / 2000 - share) < 0.04, recipe


def test_the_official_recipe_alone_draws_what_it_always_drew():
    for seed in range(20):
        mixed = drawn(DegradationSettings(), seed)
        assert mixed == drawn(RealESRGANSettings(), seed) and mixed.recipe == "official"


def test_a_clean_picture_is_only_reduced_and_enlarged_as_restoration_enlarges_it():
    hr = picture(3)
    filters = set()
    for seed in range(30):
        one = drawn(CLEAN, seed, *hr.shape[:2])
        lr, lq = one.apply(hr)
        (reduction,) = one.operations
        assert isinstance(reduction, resize.ReduceTo)
        filters.add(reduction.filter)
        size = hr.shape[1] // 4, hr.shape[0] // 4
        resampling = Image.Resampling[reduction.filter.upper()]
        small = Image.fromarray(hr).resize(size, resampling)
        assert np.array_equal(eight_bits(lr), np.asarray(small))
        enlarged = small.resize((hr.shape[1], hr.shape[0]), Image.Resampling.BICUBIC)
        assert np.array_equal(lq, np.asarray(enlarged))
    assert filters == set(CLEAN.filters)


def test_a_mild_picture_keeps_more_of_the_truth_than_an_official_one():
    hr = picture(7)
    mean = {}
    for name, settings in (("mild", MILD), ("official", RealESRGANSettings())):
        errors = [
            np.mean((degrade(hr, np.random.default_rng(seed), settings)[1] - hr.astype(float)) ** 2)
            for seed in range(12)
        ]
        mean[name] = np.mean(errors)
    assert mean["mild"] < 0.7 * mean["official"]


def test_mild_noise_and_jpeg_come_after_the_reduction():
    for seed in range(200):
        kinds = [type(one).__name__ for one in drawn(MILD, seed).operations]
        order = ["Blur", "ReduceTo", "GaussianNoise", "PoissonNoise", "Jpeg"]
        assert kinds == sorted(kinds, key=order.index)
        for one in drawn(MILD, seed).operations:
            if isinstance(one, jpeg.Jpeg):
                assert 55 <= one.quality <= 99 and one.variant == "libjpeg"


def test_every_number_is_a_config_key_and_the_others_keep_their_defaults():
    second = {"jpeg_quality": [80.0, 90.0]}
    values = {"mixture": "mild,official:3", "official": {"second": second}}
    config = validate({"data": {"degradation": values}, "encoder": {"kind": "none"}} | NANO)
    made = config.data.degradation
    expected = RealESRGANSettings()
    changed = dataclasses.replace(expected.second, jpeg_quality=(80.0, 90.0))
    assert made.official == dataclasses.replace(expected, second=changed)
    assert made.mild == MILD and made.shares() == {"mild": 0.25, "official": 0.75}


NANO = {"autoencoder": {"kind": "space_to_depth"}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mixture": "soft"}, "soft"),
        ({"mixture": "mild,mild"}, "each once"),
        ({"mixture": "mild:0"}, "weight of mild"),
        ({"mixture": "mild:much"}, "weight of mild"),
        ({"mixture": ""}, "must be one of"),
        ({"mild": {"filters": ["sharp"]}}, "filters"),
        ({"mild": {"jpeg_quality": [0.0, 50.0]}}, "jpeg_quality"),
        ({"official": {"first": {"gaussian_sigma": [9.0, 1.0]}}}, "gaussian_sigma"),
        ({"official": {"first": {"resize_probabilities": [0.0, 0.0, 0.0]}}}, "weights"),
        ({"clean": {"noise_probability": 1.5}}, "noise_probability"),
        ("libjpeg", "must be a section"),
    ],
)
def test_a_wrong_recipe_is_named(change, said):
    with pytest.raises(UserError, match=said):
        validate({"data": {"degradation": change}, "encoder": {"kind": "none"}} | NANO)
