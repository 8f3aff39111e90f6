"""Euler samplers: what they integrate and how often they ask the network."""

import jax.numpy as jnp
import numpy as np
import pytest

from vosr_jax.diffusion.guidance import GuidanceSettings
from vosr_jax.diffusion.sampler import SamplerSettings, sample

RNG = np.random.default_rng(0)
LQ, NOISE, HR = (jnp.asarray(RNG.normal(size=(2, 4, 4, 3)), jnp.float32) for _ in range(3))
TOKENS = jnp.asarray(RNG.normal(size=(2, 5, 6)), jnp.float32)


class Network:
    """Notes the rows of each (traced) call; its velocity mixes everything it is given."""

    def __init__(self):
        self.calls: list[int] = []
        self.r_given: list[bool] = []

    def __call__(self, condition, z_t, t, visual_tokens=None, r=None):
        self.calls.append(len(condition))
        self.r_given.append(r is not None)
        velocity = 0.3 * z_t - condition + t[:, None, None, None]
        if visual_tokens is not None:
            velocity += visual_tokens.mean((1, 2))[:, None, None, None]
        return velocity if r is None else velocity + r[:, None, None, None]


def by_hand(settings: SamplerSettings, tokens=None) -> np.ndarray:
    network, z = Network(), NOISE
    times = settings.times()
    for t, t_next in zip(times, times[1:], strict=False):
        full = network(LQ, z, jnp.full(2, t), tokens)
        weak_tokens = None if tokens is None else 0 * tokens
        weak = network(settings.weak_strength * LQ, z, jnp.full(2, t), weak_tokens)
        start, end = settings.guidance_interval
        s = settings.guidance_scale if start <= t <= end else 1.0
        z = z - (t - t_next) * (weak + s * (full - weak))
    return np.asarray(z)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("scale", [-0.5, 0.0, 0.5, 1.0, 2.0])
def test_guided_steps_mix_the_branches(schedule: str, scale: float):
    settings = SamplerSettings(4, schedule, scale, weak_strength=0.2)
    got = sample(Network(), LQ, NOISE, settings, visual_tokens=TOKENS)
    np.testing.assert_allclose(got, by_hand(settings, TOKENS), atol=1e-5)


def test_outside_the_interval_the_full_branch_alone_steers():
    settings = SamplerSettings(5, guidance_scale=0.3, guidance_interval=(0.2, 0.6))
    assert [settings.guided(t) for t in (1.0, 0.8, 0.6, 0.4, 0.2)] == [False, False, *[True] * 3]
    got = sample(Network(), LQ, NOISE, settings)
    np.testing.assert_allclose(got, by_hand(settings), atol=1e-5)


def test_the_weak_branch_is_computed_only_where_it_counts():
    """One traced call a run of equal steps; guided ones have twice the rows."""
    for settings, rows in [
        (SamplerSettings(4, guidance_scale=1.0), [2]),
        (SamplerSettings(4, guidance_scale=0.5), [4]),
        (SamplerSettings(4, guidance_scale=0.5, guidance_interval=(0.4, 0.6)), [2, 4, 2]),
        (SamplerSettings(4, guidance_scale=0.5, r_input=True), [2]),
    ]:
        network = Network()
        sample(network, LQ, NOISE, settings)
        # A scan may trace its body more than once.
        assert [k for i, k in enumerate(network.calls) if network.calls[i - 1 : i] != [k]] == rows


def test_a_straight_flow_arrives_in_any_number_of_steps():
    for schedule in ("linear", "cosine"):
        for steps in (1, 3, 10):
            latent = sample(lambda *_: NOISE - HR, LQ, NOISE, SamplerSettings(steps, schedule))
            np.testing.assert_allclose(latent, HR, atol=1e-5)


def test_schedules_run_from_one_to_zero():
    linear, cosine = SamplerSettings(4).times(), SamplerSettings(4, "cosine").times()
    np.testing.assert_allclose(linear, [1, 0.75, 0.5, 0.25, 0])
    np.testing.assert_allclose(cosine, np.cos(np.pi / 8 * np.arange(5)), atol=1e-7)


def test_a_student_is_told_where_each_step_ends():
    network = Network()
    settings = SamplerSettings(2, guidance_scale=0.5, r_input=True)
    got, z = sample(network, LQ, NOISE, settings), NOISE
    for t, r in ((1.0, 0.5), (0.5, 0.0)):
        z = z - (t - r) * Network()(LQ, z, jnp.full(2, t), None, jnp.full(2, r))
    np.testing.assert_allclose(got, z, atol=1e-6)
    assert all(network.r_given)


def test_the_trainings_guidance_tells_how_to_sample():
    restoration = SamplerSettings.from_guidance(GuidanceSettings(scale=-0.5), steps=3)
    assert (restoration.guidance_scale, restoration.weak_strength) == (-0.5, 0.15)
    free = GuidanceSettings(kind="classifier_free", scale=2.0)
    assert SamplerSettings.from_guidance(free).weak_strength == 0
    none = GuidanceSettings(kind="none", scale=2.0)
    assert SamplerSettings.from_guidance(none).guidance_scale == 1


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_student_goes_from_time_to_time_by_its_average_velocity(steps: int):
    settings = SamplerSettings(steps, guidance_scale=0.5, r_input=True)
    network, z, times = Network(), NOISE, settings.times()
    got = sample(network, LQ, NOISE, settings, visual_tokens=TOKENS)
    assert set(network.calls) == {2} and all(network.r_given), "full rows alone, with r"
    for t, r in zip(times, times[1:], strict=False):
        z = z - (t - r) * Network()(LQ, z, jnp.full(2, t), TOKENS, jnp.full(2, r))
    np.testing.assert_allclose(got, z, atol=1e-5)


def test_a_one_step_network_without_r_is_asked_once():
    """VOSR 2.0's kind: the velocity at t = 1 leads to the picture."""
    network = Network()
    got = sample(network, LQ, NOISE, SamplerSettings(steps=1), visual_tokens=TOKENS)
    assert network.calls == [2] and network.r_given == [False]
    expected = NOISE - Network()(LQ, NOISE, jnp.ones(2), TOKENS)
    np.testing.assert_allclose(got, expected, atol=1e-5)
