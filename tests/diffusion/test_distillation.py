"""What the distillation objectives promise; their values are proven in tests/parity."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vosr_jax.diffusion.denoiser import DirectDenoiser
from vosr_jax.diffusion.guidance import GuidanceSettings
from vosr_jax.diffusion.noise import index_words
from vosr_jax.diffusion.objectives import loss_of, rcgm, shortcut
from vosr_jax.diffusion.objectives.distillation import (
    DistillationSettings,
    guided_target,
    prepare,
    wide,
)
from vosr_jax.diffusion.objectives.mean_flow import MeanFlowSettings
from vosr_jax.diffusion.parameterization import Parameterization
from vosr_jax.diffusion.timesteps import IntervalSettings

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
BATCH = {
    "hr_latent": jnp.asarray(RNG.normal(size=(6, 4, 4, 3)), jnp.float32),
    "lq_latent": jnp.asarray(RNG.normal(size=(6, 4, 4, 3)), jnp.float32),
    "visual_tokens": jnp.asarray(RNG.normal(size=(6, 5, 2)), jnp.float32),
    "index": jnp.asarray(index_words(np.arange(6))),
    "step": jnp.int32(0),
}
ALL = [rcgm.RCGMSettings, shortcut.ShortcutSettings, MeanFlowSettings]


def student(condition, z_t, t, tokens, r):
    seen = tokens.mean((1, 2))[:, None, None, None]
    return jnp.sin(z_t) + condition * wide(t) + wide(t - r) + seen


def teacher(condition, z_t, t, tokens=None, r=None):
    assert r is None
    return jnp.cos(z_t) + condition * wide(t) + tokens.mean((1, 2))[:, None, None, None]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("teacher_fn", [teacher, None])
def test_rows_of_the_loss_are_those_of_smaller_batches(kind, teacher_fn):
    settings = kind()
    loss = loss_of(settings)
    value, metrics = loss(student, BATCH, KEY, settings, teacher_fn=teacher_fn)
    parts = [
        loss(
            student,
            {k: v if k == "step" else v[rows] for k, v in BATCH.items()},
            KEY,
            settings,
            teacher_fn=teacher_fn,
        )
        for rows in (slice(0, 2), slice(2, 6))
    ]
    joined = np.concatenate([part[1]["loss_rows"] for part in parts])
    np.testing.assert_allclose(metrics["loss_rows"], joined, rtol=1e-5)
    assert value == pytest.approx(float(joined.mean()), rel=1e-5)


def test_the_guided_target_leans_by_the_scale_inside_the_interval_alone():
    settings = DistillationSettings(
        guidance=GuidanceSettings(scale=0.5, interval=(0.3, 0.8)), weak_strength=0.2
    )
    sample = prepare(BATCH, KEY, None, settings)
    target = guided_target(DirectDenoiser(student), DirectDenoiser(teacher), sample, settings)
    full = teacher(sample.full, sample.z_t, sample.t, BATCH["visual_tokens"])
    nothing = jnp.zeros_like(BATCH["visual_tokens"])
    weak = teacher(0.2 * BATCH["lq_latent"], sample.z_t, sample.t, nothing)
    inside = (sample.t >= 0.3) & (sample.t <= 0.8)
    assert 0 < inside.sum() < 6
    expected = jnp.where(wide(inside), weak + 0.5 * (full - weak), full)
    np.testing.assert_allclose(target, expected, atol=1e-6)


def test_without_a_teacher_the_weak_branch_is_the_students():
    settings = DistillationSettings(guidance=GuidanceSettings(scale=0.5))
    sample = prepare(BATCH, KEY, None, settings)
    target = guided_target(DirectDenoiser(student), None, sample, settings)
    nothing = jnp.zeros_like(BATCH["visual_tokens"])
    weak = student(sample.weak, sample.z_t, sample.t, nothing, sample.t)
    np.testing.assert_allclose(target, weak + 0.5 * (sample.velocity - weak), atol=1e-6)


@pytest.mark.parametrize("kind", ["none", "scale 1"])
def test_guidance_that_does_nothing_asks_for_no_weak_branch(kind: str):
    own = GuidanceSettings(kind="none") if kind == "none" else GuidanceSettings(scale=1.0)
    settings = DistillationSettings(guidance=own)
    sample = prepare(BATCH, KEY, None, settings)

    def spy(condition, z_t, t, tokens=None, r=None):
        assert len(z_t) == 6
        return teacher(condition, z_t, t, tokens)

    target = guided_target(DirectDenoiser(student), DirectDenoiser(spy), sample, settings)
    expected = teacher(sample.full, sample.z_t, sample.t, BATCH["visual_tokens"])
    np.testing.assert_array_equal(target, expected)


@pytest.mark.parametrize("kind", [rcgm.RCGMSettings, shortcut.ShortcutSettings])
def test_a_constant_velocity_is_its_own_average(kind):
    """Every average of a straight flow is its velocity, at every length of the small step."""

    def straight(condition, z_t, t, tokens=None, r=None):
        return jnp.full_like(z_t, 0.7)

    for changes in ({}, {"delta_t": 0.2, "n_steps": 3}) if kind is rcgm.RCGMSettings else ({},):
        settings = kind(guidance=GuidanceSettings(scale=1.0), **changes)
        value, _ = loss_of(settings)(straight, BATCH, KEY, settings, teacher_fn=straight)
        assert value == pytest.approx(0, abs=1e-7)


def test_targets_carry_no_gradient():
    """The loss's gradient is that of the squared distance to what stands still."""
    settings = rcgm.RCGMSettings(guidance=GuidanceSettings(scale=1.0))
    sample = prepare(BATCH, KEY, None, settings)

    def shifted(shift, z_t):
        return jnp.zeros_like(z_t) + shift

    def loss(shift):
        def field(condition, z_t, t, tokens, r):
            return shifted(shift, z_t)

        return rcgm.loss(field, BATCH, KEY, settings, teacher_fn=teacher)[0]

    target = guided_target(DirectDenoiser(student), DirectDenoiser(teacher), sample, settings)
    shift = 0.3
    zeros = jnp.zeros_like(sample.z_t)
    goal = rcgm.consistent_average(
        DirectDenoiser(lambda c, z, t, v, r: shifted(shift, z)),
        zeros + shift,
        sample.tokens,
        target,
        sample,
        settings,
    )
    expected = 2 * jnp.mean(shift - target) + 2 * jnp.mean(shift - goal)
    assert jax.grad(loss)(shift) == pytest.approx(float(expected), rel=1e-4)


def test_the_perceptual_term_sees_the_one_step_endpoint_of_rows_that_end_at_0():
    form = Parameterization("residual", "endpoint", smallest_t=0.2)
    settings = rcgm.RCGMSettings(
        interval=IntervalSettings(one_step_share=0.5),
        guidance=GuidanceSettings(kind="none"),
        parameterization=form,
        perceptual_weight=2.0,
    )
    seen = {}

    def endpoint(condition, z_t, t, tokens=None, r=None):
        return jnp.full_like(z_t, 0.25)

    def distance(latent, batch, wanted):
        seen.update(latent=latent, wanted=wanted)
        return jnp.where(wanted, 3.0, 0.0)

    field = form.velocity_fn(endpoint)
    value, metrics = rcgm.loss(
        field, BATCH, KEY, settings, teacher_fn=field, endpoint_distance=distance
    )
    sample = prepare(BATCH, KEY, None, settings)
    np.testing.assert_array_equal(seen["wanted"], (sample.t == 1) & (sample.r == 0))
    assert 0 < seen["wanted"].sum() < 6
    expected = BATCH["lq_latent"] + 0.15 * 0.25
    np.testing.assert_allclose(seen["latent"], expected, atol=1e-5)
    plain = metrics["loss_rows"].mean()
    assert value == pytest.approx(float(plain + 2 * metrics["perceptual_rows"].mean()), rel=1e-5)


def toy():
    path = Path(__file__).parents[2] / "benchmarks" / "toy_distillation.py"
    spec = importlib.util.spec_from_file_location("toy_distillation", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_toys_exact_velocity_leads_to_its_exact_step():
    module = toy()
    c, z = (jax.random.normal(k, (100, 1, 1, 2)) for k in jax.random.split(KEY))
    expected, steps = module.exact_step(c, z, True), 200
    mean = (module.SCALE + (1 - module.SCALE) * module.WEAK) * c
    times = jnp.linspace(1, 0, steps + 1)

    # Midpoints, so that the steps' error vanishes with their square.
    def step(z, interval):
        t, end = interval
        middle = z - (t - end) / 2 * module.exact_velocity(mean, z, jnp.full(100, t))
        half = jnp.full(100, (t + end) / 2)
        return z - (t - end) * module.exact_velocity(mean, middle, half), None

    z, _ = jax.lax.scan(step, z, (times[:-1], times[1:]))
    np.testing.assert_allclose(z, expected, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(toy().CASES))
def test_every_objective_learns_the_toys_one_step_map(name: str):
    module = toy()
    settings, has_teacher = module.CASES[name]
    layers, _ = module.train(settings, has_teacher, steps=1000)
    errors = module.judge(layers, has_teacher)
    # Deviations of the data: 1 and 0.3; random weights are off by about 1 in each.
    assert errors["map"] < 0.2 and errors["mean"] < 0.12 and errors["covariance"] < 0.15, errors
