"""Attention's fast implementations beside the plain formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vosr_jax.models.attention import attention_on, plain_attention
from vosr_jax.models.splash_attention import splash_attention, splash_fits


def given(queries: int, keys: int, heads: int = 2, width: int = 64):
    shapes = ((1, queries, heads, width), (1, keys, heads, width), (1, keys, heads, width))
    own = jax.random.split(jax.random.key(0), 3)
    return [jax.random.normal(key, shape) for key, shape in zip(own, shapes, strict=True)]


@pytest.mark.parametrize("queries, keys", [(256, 256), (128, 384)])
def test_the_splash_kernel_is_the_plain_formula_and_so_are_its_gradients(queries, keys):
    inputs = given(queries, keys)

    def loss(attention, *inputs):
        return jnp.sum(jnp.sin(attention(*inputs)))

    def splash(*inputs):
        return splash_attention(*inputs, interpret=True)

    np.testing.assert_allclose(splash(*inputs), plain_attention(*inputs), atol=2e-5)
    ours = jax.grad(loss, argnums=(1, 2, 3))(splash, *inputs)
    plain = jax.grad(loss, argnums=(1, 2, 3))(plain_attention, *inputs)
    for a, b in zip(ours, plain, strict=True):
        np.testing.assert_allclose(a, b, atol=5e-5)


def test_lengths_that_are_no_multiples_of_the_lanes_fall_back():
    q, k, v = given(100, 129)
    assert not splash_fits(q, k)
    on_tpu = attention_on("tpu")
    np.testing.assert_array_equal(on_tpu(q, k, v), plain_attention(q, k, v))


def test_float32_is_never_left_to_a_kernel_of_lower_precision():
    inputs = given(128, 128)
    for platform in ("tpu", "gpu", "cpu"):
        found = attention_on(platform)(*inputs)
        np.testing.assert_array_equal(found, plain_attention(*inputs))
