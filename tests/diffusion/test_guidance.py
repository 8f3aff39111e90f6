"""Full and weak conditions of training."""

import jax.numpy as jnp
import numpy as np
import pytest

from vosr_jax.diffusion.guidance import GuidanceSettings, full_condition, training_condition

RNG = np.random.default_rng(0)
LQ = jnp.asarray(RNG.normal(size=(4, 2, 2, 3)), jnp.float32)
TOKENS = jnp.asarray(RNG.normal(size=(4, 5, 6)), jnp.float32)
DRAWS = {
    "condition_strength_normal": jnp.asarray(RNG.normal(size=4), jnp.float32),
    "condition_noise": jnp.asarray(RNG.normal(size=LQ.shape), jnp.float32),
    "condition_dropout_uniform": jnp.array([0.0, 0.05, 0.1, 0.9]),
    "weak_strength": jnp.float32(0.2),
}


def test_full_condition_keeps_a_unit_variance_and_is_nearly_clean():
    rng = np.random.default_rng(1)
    lq, noise = rng.normal(size=(2, 64, 8, 8, 4)).astype(np.float32)
    full = full_condition(lq, rng.normal(size=64).astype(np.float32), noise, GuidanceSettings())
    assert np.std(full) == pytest.approx(1, rel=0.02)
    assert np.corrcoef(np.ravel(full), lq.ravel())[0, 1] > 0.98
    clean = GuidanceSettings(condition_strength=(40.0, 1.0))
    np.testing.assert_allclose(full_condition(lq, np.zeros(64), noise, clean), lq, atol=1e-6)


def test_samples_below_the_drop_rate_get_the_dim_picture_and_no_tokens():
    settings = GuidanceSettings(drop_rate=0.1)
    condition, tokens = training_condition(LQ, TOKENS, DRAWS, settings)
    strength, noise = DRAWS["condition_strength_normal"], DRAWS["condition_noise"]
    full = full_condition(LQ, strength, noise, settings)
    np.testing.assert_allclose(condition[:2], 0.2 * LQ[:2], rtol=1e-6)
    np.testing.assert_allclose(condition[2:], full[2:], rtol=1e-6)
    assert not tokens[:2].any()
    np.testing.assert_array_equal(tokens[2:], TOKENS[2:])


def test_classifier_free_shows_its_weak_branch_nothing():
    settings = GuidanceSettings(kind="classifier_free")
    condition, tokens = training_condition(LQ, TOKENS, DRAWS, settings)
    assert not condition[:2].any() and not tokens[:2].any()
    assert condition[2:].any() and settings.weak_strength == 0


def test_without_guidance_every_sample_gets_the_full_condition():
    settings = GuidanceSettings(kind="none", drop_rate=1.0)
    condition, tokens = training_condition(LQ, TOKENS, DRAWS, settings)
    strength, noise = DRAWS["condition_strength_normal"], DRAWS["condition_noise"]
    np.testing.assert_array_equal(condition, full_condition(LQ, strength, noise, settings))
    np.testing.assert_array_equal(tokens, TOKENS)


def test_a_network_without_tokens_gets_none():
    assert training_condition(LQ, None, DRAWS, GuidanceSettings())[1] is None


def test_sampling_uses_the_middle_of_the_training_range():
    assert GuidanceSettings().weak_strength == pytest.approx(0.15)
    assert GuidanceSettings(weak_strength_range=(0.2, 0.4)).weak_strength == pytest.approx(0.3)
