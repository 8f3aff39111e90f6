"""Validation pairs stay the same for as long as the run lasts."""

import numpy as np
import pytest

from tests.data.conftest import picture
from vosr_jax.data.degradation import RealESRGANSettings
from vosr_jax.data.validation import validation_pairs
from vosr_jax.errors import UserError

OPTIONS = dict(crop_size=32, scale=4, degradation=RealESRGANSettings())


def test_pairs_have_their_sizes_and_depend_on_the_seed_alone():
    pictures = [(f"p{number}", picture(number)) for number in range(3)]
    pairs = validation_pairs(pictures, seed=0, **OPTIONS)
    again = validation_pairs(pictures, seed=0, **OPTIONS)
    other = validation_pairs(pictures, seed=1, **OPTIONS)
    for pair, same, changed in zip(pairs, again, other, strict=True):
        assert pair.hr.shape == pair.lq.shape == (32, 32, 3) and pair.lr.shape == (8, 8, 3)
        assert pair.hr.dtype == pair.lr.dtype == pair.lq.dtype == np.uint8
        assert np.array_equal(pair.lq, same.lq) and np.array_equal(pair.hr, same.hr)
        assert not np.array_equal(pair.lq, changed.lq)


def test_a_picture_keeps_its_pair_when_others_come_and_go():
    pictures = [(f"p{number}", picture(number)) for number in range(3)]
    alone = validation_pairs(pictures[2:], seed=0, **OPTIONS)[0]
    among = validation_pairs(pictures, seed=0, **OPTIONS)[2]
    assert alone.name == among.name and np.array_equal(alone.lr, among.lr)


def test_several_crops_of_a_picture_differ():
    one, two = validation_pairs([("p", picture(0))], seed=0, crops_per_picture=2, **OPTIONS)
    assert one.name != two.name and not np.array_equal(one.lq, two.lq)


def test_an_unreadable_picture_is_an_error_with_its_name(photographs):
    with pytest.raises(UserError, match="picture99.png"):
        validation_pairs([photographs / "picture99.png"], seed=0, **OPTIONS)
