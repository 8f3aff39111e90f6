"""The multi-step objective's own properties; its value is proven in tests/parity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vosr_jax.diffusion.guidance import GuidanceSettings
from vosr_jax.diffusion.noise import index_words
from vosr_jax.diffusion.objectives.flow_matching import FlowMatchingSettings, draw, loss, weave
from vosr_jax.diffusion.parameterization import Parameterization

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
SETTINGS = FlowMatchingSettings()
BATCH = {
    "hr_latent": jnp.asarray(RNG.normal(size=(6, 4, 4, 3)), jnp.float32),
    "lq_latent": jnp.asarray(RNG.normal(size=(6, 4, 4, 3)), jnp.float32),
    "visual_tokens": jnp.asarray(RNG.normal(size=(6, 5, 2)), jnp.float32),
    "index": jnp.asarray(index_words(np.arange(6))),
    "step": jnp.int32(0),
}


def rows_of(batch: dict, rows: slice) -> dict:
    return {k: v if k == "step" else v[rows] for k, v in batch.items()}


def network(condition, z_t, t, visual_tokens=None, r=None):
    return jnp.sin(z_t) + condition * t[:, None, None, None] + visual_tokens.mean()


def test_the_true_velocity_has_no_loss():
    draws = draw(KEY, BATCH, SETTINGS)
    value, metrics = loss(lambda *_: draws["noise"] - BATCH["hr_latent"], BATCH, KEY, SETTINGS)
    assert value == 0 and not metrics["loss_rows"].any()


def test_charbonnier_grows_with_the_error_and_not_with_its_square():
    draws = draw(KEY, BATCH, SETTINGS)
    settings = FlowMatchingSettings(penalty="charbonnier")

    def off_by(error: float) -> float:
        velocity = draws["noise"] - BATCH["hr_latent"] + error
        return float(loss(lambda *_: velocity, BATCH, KEY, settings, draws=draws)[0])

    assert off_by(0.0) == pytest.approx(0.01)
    assert off_by(2.0) == pytest.approx(2 * off_by(1.0), rel=1e-3) == pytest.approx(2.0, rel=1e-3)


def test_rows_of_the_loss_are_those_of_smaller_batches():
    def rowwise(condition, z_t, t, visual_tokens, r):
        return jnp.sin(z_t) + condition * t[:, None, None, None]

    value, metrics = loss(rowwise, BATCH, KEY, SETTINGS)
    parts = [loss(rowwise, rows_of(BATCH, s), KEY, SETTINGS) for s in (slice(0, 2), slice(2, 6))]
    joined = np.concatenate([part[1]["loss_rows"] for part in parts])
    np.testing.assert_allclose(metrics["loss_rows"], joined, rtol=1e-6)
    assert value == pytest.approx(float(joined.mean()), rel=1e-6)
    assert metrics["loss_rows"].shape == metrics["t"].shape == (6,)


def test_the_network_sees_the_point_between_endpoint_and_noise():
    seen = {}

    def spy(condition, z_t, t, visual_tokens, r):
        seen.update(z_t=z_t, t=t, r=r, tokens=visual_tokens)
        return z_t

    guidance = GuidanceSettings(drop_rate=1.0)
    form = Parameterization("residual", residual_scale=0.5)
    settings = FlowMatchingSettings(guidance=guidance, parameterization=form)
    loss(spy, BATCH, KEY, settings)
    draws = draw(KEY, BATCH, settings)
    t = draws["time_draw"][:, None, None, None]
    x = (BATCH["hr_latent"] - BATCH["lq_latent"]) / 0.5
    np.testing.assert_allclose(seen["z_t"], (1 - t) * x + t * draws["noise"], atol=1e-6)
    np.testing.assert_array_equal(seen["t"], draws["time_draw"])
    assert seen["r"] is None and not seen["tokens"].any()


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_the_distance_of_the_endpoint_counts_by_its_weight(power: float):
    settings = FlowMatchingSettings(perceptual_weight=3.0, perceptual_power=power)
    plain, _ = loss(network, BATCH, KEY, settings)
    distances = jnp.arange(6.0)
    value, metrics = loss(
        network, BATCH, KEY, settings, endpoint_distance=lambda latent, batch: distances
    )
    expected = plain + 3.0 * jnp.mean((1 - metrics["t"]) ** power * distances)
    assert value == pytest.approx(float(expected), rel=1e-6)


def test_the_endpoint_that_is_judged_is_the_hr_latent_once_the_velocity_is_true():
    draws, judged = draw(KEY, BATCH, SETTINGS), {}

    def distance(latent, batch):
        judged["latent"] = latent
        return jnp.zeros(6)

    loss(
        lambda *_: draws["noise"] - BATCH["hr_latent"],
        BATCH,
        KEY,
        FlowMatchingSettings(perceptual_weight=1.0),
        endpoint_distance=distance,
    )
    np.testing.assert_allclose(judged["latent"], BATCH["hr_latent"], atol=1e-5)


def test_a_weave_is_what_local_means_have_of_their_own_at_each_pixel_of_a_square():
    rng = np.random.default_rng(0)
    smooth = jnp.asarray(
        np.repeat(rng.normal(size=(2, 16, 16, 1, 3)), 16, 3).reshape(2, 16, 16, 48)
    )
    np.testing.assert_allclose(weave(smooth), 0, atol=1e-9)
    pattern = rng.normal(size=(1, 1, 1, 16, 3))
    pattern -= pattern.mean(3, keepdims=True)
    woven = smooth + jnp.asarray(pattern.reshape(1, 1, 1, 48))
    np.testing.assert_allclose(weave(woven), np.square(pattern).mean(), rtol=1e-4)
    noise = jnp.asarray(rng.normal(size=(2, 16, 16, 48)))
    assert float(weave(noise).max()) < 2 / 64
    # Sides that 8 does not divide are one neighbourhood.
    np.testing.assert_allclose(weave(woven[:, :5, :9]), np.square(pattern).mean(), rtol=1e-4)


def test_the_weave_is_added_by_its_weight():
    batch = BATCH | {name: jnp.zeros((6, 4, 4, 12)) for name in ("hr_latent", "lq_latent")}
    draws = draw(KEY, batch, SETTINGS)
    pattern = jnp.asarray(RNG.normal(size=12), jnp.float32)
    velocity = draws["noise"] + pattern
    plain, woven = (
        float(loss(lambda *_: velocity, batch, KEY, settings, draws=draws)[0])
        for settings in (SETTINGS, FlowMatchingSettings(weave_weight=2.0))
    )
    t = SETTINGS.time.to_t(draws["time_draw"])[:, None, None, None]
    expected = 2 * weave(jnp.broadcast_to(t * pattern, (6, 4, 4, 12))).mean()
    assert woven - plain == pytest.approx(float(expected), rel=1e-4)
