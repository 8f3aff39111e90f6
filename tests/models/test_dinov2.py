"""DINOv2's network by itself: what is computed, in which precision, of which sizes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vosr_jax.models.dinov2.network import DINOv2, DINOv2Settings, preprocess, visual_tokens

SETTINGS = DINOv2Settings(width=32, depth=3, heads=2, ffn_width=48, grid=3)


@pytest.fixture(scope="module")
def model():
    return DINOv2(SETTINGS, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def image():
    return jax.random.normal(jax.random.key(1), (2, 42, 56, 3))


def test_only_the_blocks_up_to_the_one_asked_for_are_computed(model, image):
    graphdef, state = nnx.split(model)

    def poison(path, value):
        later = path[0].key == "blocks"
        return value.at[2:].set(jnp.nan) if later else value

    poisoned = nnx.merge(graphdef, jax.tree_util.tree_map_with_path(poison, state))
    np.testing.assert_array_equal(poisoned(image, 1), model(image, 1))
    assert np.isnan(poisoned(image, 2)).all()


def test_scanned_blocks_equal_a_plain_loop_over_them(model, image):
    graphdef, stacked = nnx.split(model.blocks)
    x = model._embed(image)
    for i in range(SETTINGS.depth):
        x = nnx.merge(graphdef, jax.tree.map(lambda a, i=i: a[i], stacked))(x, jnp.float32)
    ours = model.tokens(image, final_norm=False)
    np.testing.assert_allclose(ours, x, rtol=1e-5, atol=1e-6)


def test_the_last_index_means_after_the_final_norm(model, image):
    np.testing.assert_array_equal(model(image, 2), model(image, None))
    before = model(image, 2, final_norm=False)
    assert np.abs(model(image, 2) - before).max() > 1e-3
    np.testing.assert_allclose(model(image).mean(-1), 0.0, atol=1e-5)


def test_patch_tokens_exclude_class_token_and_registers(image):
    settings = dataclasses.replace(SETTINGS, registers=4)
    model = DINOv2(settings, rngs=nnx.Rngs(0))
    assert model(image, 0).shape == (2, 3 * 4, 32)
    assert model.tokens(image, 0).shape == (2, 1 + 4 + 3 * 4, 32)


def test_a_patch_token_follows_its_patch_row_by_row(model, image):
    changed = image.at[:, 14:28, 42:56].add(1.0)
    moved = np.abs(np.asarray(model._embed(changed) - model._embed(image))).max((0, 2))
    assert np.flatnonzero(moved).tolist() == [1 + 1 * 4 + 3]


def test_bfloat16_products_stay_near_and_tokens_stay_float32(model, image):
    exact, half = model(image), model(image, dtype=jnp.bfloat16)
    assert half.dtype == jnp.float32
    difference = float(jnp.abs(half - exact).max() / jnp.abs(exact).max())
    assert 1e-6 < difference < 0.03


def test_a_side_that_is_no_multiple_of_the_patch_is_an_error(model):
    with pytest.raises(ValueError, match="30x28 image: sides must be multiples of 14"):
        model(jnp.zeros((1, 30, 28, 3)))


def test_a_block_that_was_not_kept_is_an_error(image):
    model = DINOv2(dataclasses.replace(SETTINGS, kept_blocks=2), rngs=nnx.Rngs(0))
    assert model(image, 1).shape == (2, 12, 32)
    with pytest.raises(ValueError, match="block 2 of 2"):
        model(image)


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        (DINOv2Settings.vit_s(), 22_056_192),
        (DINOv2Settings.vit_b(), 86_579_712),
        (DINOv2Settings.vit_l(), 304_367_616),
        (DINOv2Settings.vit_g(), 1_136_479_232),
        (DINOv2Settings.vit_b(registers=4), 86_579_712 + 4 * 768),
    ],
)
def test_released_sizes_have_the_released_parameter_counts(settings, parameters):
    # The official count is larger by the mask token, one vector, which only its training uses.
    shapes = nnx.eval_shape(lambda: DINOv2(settings, rngs=nnx.Rngs(0)))
    assert sum(x.size for x in jax.tree.leaves(nnx.state(shapes))) == parameters


def test_preprocessing_clips_before_it_normalizes():
    stripes = jnp.tile(jnp.asarray([0.0, 1.0]), 8)[None, None, :, None] * jnp.ones((1, 16, 1, 3))
    out = np.asarray(preprocess(stripes, 28)) * [0.229, 0.224, 0.225] + [0.485, 0.456, 0.406]
    assert out.min() >= -1e-6 and out.max() <= 1 + 1e-6
    assert out.shape == (1, 28, 28, 3)


def test_visual_tokens_take_pictures_in_minus_one_to_one(model):
    picture = jax.random.uniform(jax.random.key(2), (1, 20, 24, 3), minval=-1.0)
    expected = model(preprocess((picture + 1) / 2, 42), 1)
    np.testing.assert_allclose(visual_tokens(model, picture, 42, 1), expected, rtol=1e-5, atol=1e-5)
