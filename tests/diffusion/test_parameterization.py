"""One flow, three things a network may predict of it."""

import jax.numpy as jnp
import numpy as np
import pytest

from vosr_jax.diffusion.parameterization import Parameterization
from vosr_jax.diffusion.sampler import SamplerSettings, sample

RNG = np.random.default_rng(0)
HR, LQ, NOISE = (jnp.asarray(RNG.normal(size=(3, 4, 4, 2)), jnp.float32) for _ in range(3))
PREDICTIONS = ("velocity", "endpoint", "preconditioned")


def endpoint_of(condition, z_t, t) -> jnp.ndarray:
    """Some smooth guess of the endpoint."""
    return jnp.tanh(condition + 0.5 * z_t) * (2 - t[:, None, None, None])


def network_predicting(prediction: str):
    """The same guess as each kind of network would say it."""

    def network(condition, z_t, t, visual_tokens=None, r=None):
        x, time = endpoint_of(condition, z_t, t), t[:, None, None, None]
        if prediction == "endpoint":
            return x
        velocity = (z_t - x) / time
        if prediction == "velocity":
            return velocity
        d = (1 - time) ** 2 + time**2
        return ((2 * time - 1) / d * z_t - velocity) * jnp.sqrt(d)

    return network


@pytest.mark.parametrize("endpoint", ["hr", "residual"])
def test_every_prediction_of_one_guess_samples_the_same_latent(endpoint: str):
    settings = SamplerSettings(steps=5)
    latents = [
        sample(
            network_predicting(prediction),
            LQ,
            NOISE,
            settings,
            parameterization=Parameterization(endpoint, prediction),
        )
        for prediction in PREDICTIONS
    ]
    np.testing.assert_allclose(latents[1], latents[0], atol=1e-5)
    np.testing.assert_allclose(latents[2], latents[0], atol=1e-5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("endpoint", ["hr", "residual"])
def test_the_true_velocity_points_at_the_hr_latent(endpoint: str, prediction: str):
    form = Parameterization(endpoint, prediction)
    t = jnp.array([0.01, 0.5, 1.0])
    time = t[:, None, None, None]
    x = form.to_endpoint(HR, LQ)
    z_t = (1 - time) * x + time * NOISE
    velocity = form.velocity_target(x, NOISE, z_t, t)
    if prediction != "endpoint":
        np.testing.assert_allclose(velocity, NOISE - x, atol=1e-5)
    latent = form.to_latent(form.predicted_endpoint(velocity, z_t, t), LQ)
    np.testing.assert_allclose(latent, HR, atol=1e-4)


def test_an_endpoint_predicted_exactly_has_no_error_however_small_t():
    form = Parameterization(prediction="endpoint")
    t = jnp.array([0.0, 1e-4, 0.3])
    z_t = (1 - t[:, None, None, None]) * HR + t[:, None, None, None] * NOISE
    velocity = form.velocity_fn(lambda *_: HR)(LQ, z_t, t)
    assert np.isfinite(velocity).all()
    np.testing.assert_array_equal(velocity, form.velocity_target(HR, NOISE, z_t, t))


def test_a_preconditioned_network_sees_a_target_of_unit_variance():
    """F = ((2t - 1) z / d - v) sqrt(d): for unit normal endpoints and noise, at every t."""
    rng = np.random.default_rng(1)
    x, noise = rng.normal(size=(2, 8, 64, 64, 2)).astype(np.float32)
    t = jnp.linspace(0.0, 1.0, 8)
    time = t[:, None, None, None]
    z_t = (1 - time) * x + time * noise
    # The velocity function is linear in the network's output: F = (v(0) - v) / (v(0) - v(1)).
    form = Parameterization(prediction="preconditioned")
    at_zero = form.velocity_fn(lambda *_: jnp.zeros_like(z_t))(None, z_t, t)
    at_one = form.velocity_fn(lambda *_: jnp.ones_like(z_t))(None, z_t, t)
    target = (at_zero - (noise - x)) / (at_zero - at_one)
    np.testing.assert_allclose(jnp.std(target, axis=(1, 2, 3)), 1, atol=0.03)
    correlation = jnp.mean(target * z_t, axis=(1, 2, 3))
    np.testing.assert_allclose(correlation, 0, atol=0.03)
