"""Linear maps: half-precision products with float32 gradients of their kernels."""

import jax
import jax.numpy as jnp
import numpy as np

from vosr_jax.models.layers import linear_product, matmul_precision


def given(dtype=jnp.float32):
    x = jax.random.normal(jax.random.key(0), (3, 4, 8)).astype(dtype)
    return x, jax.random.normal(jax.random.key(1), (8, 2, 5))


def loss(product, x, kernel):
    return jnp.sum(jnp.sin(product(x, kernel).astype(jnp.float32)))


def plain(x, kernel):
    return jnp.tensordot(x, kernel, 1)


def test_value_and_both_gradients_are_the_plain_products():
    x, kernel = given()
    np.testing.assert_allclose(linear_product(x, kernel), plain(x, kernel), atol=1e-6)
    ours = jax.grad(loss, (1, 2))(linear_product, x, kernel)
    for a, b in zip(ours, jax.grad(loss, (1, 2))(plain, x, kernel), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_float32_kernel_gets_an_unrounded_gradient_from_bfloat16_products():
    x, kernel = given(jnp.bfloat16)
    gradient = jax.grad(loss, 2)(linear_product, x, kernel)
    assert gradient.dtype == jnp.float32
    assert np.any(np.asarray(gradient.astype(jnp.bfloat16), np.float32) != np.asarray(gradient))


def test_it_can_be_differentiated_forward_under_a_gradient():
    x, kernel = given()

    def along(product, x, kernel):
        return jax.jvp(lambda x: loss(product, x, kernel), (x,), (x,))[1]

    ours = jax.grad(along, 2)(linear_product, x, kernel)
    np.testing.assert_allclose(ours, jax.grad(along, 2)(plain, x, kernel), atol=1e-4)


def test_float32_asks_for_full_precision_unless_somebody_asks_otherwise():
    assert matmul_precision(jnp.float32) == jax.lax.Precision.HIGHEST
    with jax.default_matmul_precision("bfloat16"):
        assert matmul_precision(jnp.float32) is None
    assert matmul_precision(jnp.bfloat16) == jax.lax.Precision.DEFAULT
