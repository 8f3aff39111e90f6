"""Pieces of the autoencoders against plain formulas."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vosr_jax.models.attention.dispatch import plain_attention
from vosr_jax.models.autoencoders.blocks import GroupNorm, double, halve, spatial_attention
from vosr_jax.models.autoencoders.qwen import UnitNorm
from vosr_jax.models.layers import Conv


def test_group_norm_is_exact_far_from_zero():
    x = np.random.default_rng(0).normal(300.0, 1.0, (2, 5, 7, 12)).astype(np.float32)
    groups = x.astype(np.float64).reshape(2, 35, 3, 4)
    mean, variance = groups.mean((1, 3), keepdims=True), groups.var((1, 3), keepdims=True)
    expected = ((groups - mean) / np.sqrt(variance + 1e-6)).reshape(x.shape)
    np.testing.assert_allclose(GroupNorm(12, 3)(x), expected, atol=2e-4)


def test_a_short_types_statistics_in_one_pass_are_those_of_two():
    x = jnp.asarray(3 + np.random.default_rng(0).normal(size=(2, 9, 7, 8)), jnp.bfloat16)
    norm = GroupNorm(8, 2)
    np.testing.assert_allclose(norm(x), norm(x.astype(jnp.float32)), atol=2e-5)
    assert norm(x).dtype == jnp.float32


def test_attention_in_chunks_equals_attention_at_once():
    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (3 * jax.random.normal(key, (2, 5, 7, 8)) for key in keys)
    flat = [x.reshape(2, 35, 1, 8) for x in (q, k, v)]
    plain = plain_attention(*flat).reshape(q.shape)
    for chunk in (4, 7, 16, 100):
        np.testing.assert_allclose(spatial_attention(q, k, v, chunk), plain, rtol=1e-5, atol=1e-5)


def _tap(row: int, column: int) -> Conv:
    conv = Conv(1, 1, rngs=nnx.Rngs(0))
    conv.kernel[...] = jnp.zeros((3, 3, 1, 1)).at[row, column].set(1.0)
    return conv


def test_halving_adds_its_zeros_below_and_to_the_right_only():
    x = jnp.arange(1.0, 25.0).reshape(1, 4, 6, 1)
    np.testing.assert_array_equal(halve(_tap(0, 0), x), x[:, ::2, ::2])
    last = halve(_tap(2, 2), x)
    np.testing.assert_array_equal(last[:, :-1, :-1], x[:, 2::2, 2::2])
    assert not last[:, -1].any() and not last[:, :, -1].any()


def test_doubling_repeats_every_pixel():
    x = jnp.arange(6.0).reshape(1, 2, 3, 1)
    np.testing.assert_array_equal(double(x)[:, 1::2, ::2], x)
    np.testing.assert_array_equal(double(x)[:, ::2, 1::2], x)


def test_unit_norm_of_nothing_is_nothing():
    assert not np.asarray(UnitNorm(4)(jnp.zeros((1, 2, 2, 4)))).any()
