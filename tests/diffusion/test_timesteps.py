"""Distributions of t."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vosr_jax.diffusion.timesteps import TimeSettings


def times(settings: TimeSettings) -> np.ndarray:
    keys = jax.random.split(jax.random.key(0), 20_000)
    return np.asarray(settings.to_t(jax.vmap(settings.draw)(keys)))


def test_uniform_fills_the_interval_evenly():
    t = times(TimeSettings())
    assert 0 <= t.min() and t.max() < 1
    shares, _ = np.histogram(t, 10, (0, 1))
    np.testing.assert_allclose(shares / len(t), 0.1, atol=0.01)


def test_lognorm_has_the_stated_median_and_spread():
    t = times(TimeSettings("lognorm", mu=-0.4, sigma=0.7))
    normal = np.log(t / (1 - t))
    assert normal.mean() == pytest.approx(-0.4, abs=0.02)
    assert normal.std() == pytest.approx(0.7, abs=0.02)


def test_a_draw_of_zero_is_the_median():
    t = TimeSettings("lognorm", mu=1.0, sigma=3.0).to_t(jnp.zeros(1))
    np.testing.assert_allclose(t, 1 / (1 + np.exp(-1)), rtol=1e-6)
