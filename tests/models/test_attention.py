"""Attention's fast implementations beside the plain formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vosr_jax.models.attention import ATTENTION, attention_on, plain_attention
from vosr_jax.models.head_attention import head_attention
from vosr_jax.models.splash_attention import splash_attention, splash_fits


def given(queries: int, keys: int, heads: int = 2, width: int = 64):
    shapes = ((1, queries, heads, width), (1, keys, heads, width), (1, keys, heads, width))
    own = jax.random.split(jax.random.key(0), 3)
    return [jax.random.normal(key, shape) for key, shape in zip(own, shapes, strict=True)]


def assert_same_function(fast, inputs):
    """Values and gradients are the plain formula's."""

    def loss(attention, *inputs):
        return jnp.sum(jnp.sin(attention(*inputs)))

    np.testing.assert_allclose(fast(*inputs), plain_attention(*inputs), atol=2e-5)
    ours = jax.grad(loss, argnums=(1, 2, 3))(fast, *inputs)
    plain = jax.grad(loss, argnums=(1, 2, 3))(plain_attention, *inputs)
    for a, b in zip(ours, plain, strict=True):
        np.testing.assert_allclose(a, b, atol=5e-5)


@pytest.mark.parametrize("queries, keys", [(256, 256), (128, 384)])
def test_the_splash_kernel_is_the_plain_formula_and_so_are_its_gradients(queries, keys):
    def splash(*inputs):
        return splash_attention(*inputs, interpret=True)

    assert_same_function(splash, given(queries, keys))


@pytest.mark.parametrize("queries, keys, rows", [(40, 40, 2), (33, 50, 1)])
def test_head_by_head_is_the_plain_formula_and_so_are_its_gradients(queries, keys, rows):
    inputs = [jnp.concatenate([x + i for i in range(rows)]) for x in given(queries, keys, 3, 16)]
    assert_same_function(head_attention, inputs)


def test_on_cpu_long_sequences_in_float32_go_head_by_head_and_their_scores_are_never_whole():
    def largest(queries, dtype=jnp.float32):
        inputs = [x.astype(dtype) for x in given(queries, 512, heads=8, width=8)]
        compiled = jax.jit(attention_on("cpu")).lower(*inputs).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    scores = 4 * 8 * 512 * 512
    assert largest(512) < scores / 2 < scores <= largest(512, jnp.bfloat16)
    assert largest(511) >= scores * 511 / 512


def test_rematerialization_keeps_what_head_by_head_gives():
    inputs = given(512, 512, heads=2, width=8)
    keep = jax.checkpoint_policies.save_only_these_names(ATTENTION)

    def products(policy):
        run = jax.checkpoint(attention_on("cpu"), policy=policy)
        return str(jax.make_jaxpr(jax.grad(lambda *x: jnp.sum(run(*x))))(*inputs)).count("dot_")

    assert products(keep) < products(jax.checkpoint_policies.nothing_saveable)


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
