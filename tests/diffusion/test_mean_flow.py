"""MeanFlow: its derivative against finite differences, its weights, its average velocity."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.diffusion.test_distillation import BATCH, KEY
from vosr_jax.diffusion.guidance import GuidanceSettings
from vosr_jax.diffusion.objectives.distillation import prepare, wide
from vosr_jax.diffusion.objectives.mean_flow import MeanFlowSettings, loss
from vosr_jax.diffusion.timesteps import IntervalSettings

ROOT = Path(__file__).parents[2]
SETTINGS = MeanFlowSettings(guidance=GuidanceSettings(scale=1.0))


def test_the_networks_derivative_is_that_of_finite_differences_in_float64():
    done = subprocess.run(
        [sys.executable, "-m", "tests.diffusion.mean_flow_in_float64"],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert told["dtype"] == "float64"
    assert told["average"] < 1e-9 * told["size"]
    assert told["change"] < 1e-7 * told["size"]


def test_rows_without_an_interval_learn_the_instantaneous_velocity():
    settings = MeanFlowSettings(
        interval=IntervalSettings(end="pair", instant_share=1.0), guidance=SETTINGS.guidance
    )

    def teacher(condition, z_t, t, tokens=None, r=None):
        return jnp.sin(z_t) + wide(t)

    value, _ = loss(teacher, BATCH, KEY, settings, teacher_fn=teacher)
    assert value == pytest.approx(0, abs=1e-6)


def test_the_average_of_a_field_that_only_time_moves_has_no_loss():
    """v = t, so u = (t + r) / 2 over [r, t]."""

    def student(condition, z_t, t, tokens, r):
        return jnp.zeros_like(z_t) + wide((t + r) / 2)

    def teacher(condition, z_t, t, tokens=None, r=None):
        return jnp.zeros_like(z_t) + wide(t)

    value, _ = loss(student, BATCH, KEY, SETTINGS, teacher_fn=teacher)
    assert value == pytest.approx(0, abs=1e-6)
    wrong, _ = loss(teacher, BATCH, KEY, SETTINGS, teacher_fn=teacher)
    assert wrong > 1e-3


def test_the_adaptive_weight_evens_the_rows_out_and_is_no_part_of_the_gradient():
    sample = prepare(BATCH, KEY, None, SETTINGS)

    def teacher(condition, z_t, t, tokens=None, r=None):
        return jnp.zeros_like(z_t)

    def value(scale, settings):
        def student(condition, z_t, t, tokens, r):
            return jnp.ones_like(z_t) * wide(10.0 * jnp.arange(1, 7)) * scale

        return loss(student, BATCH, KEY, settings, teacher_fn=teacher)

    weighted, metrics = value(1.0, SETTINGS)
    np.testing.assert_allclose(metrics["loss_rows"], 1.0, rtol=1e-4)
    plain, _ = value(1.0, MeanFlowSettings(guidance=SETTINGS.guidance, power=0.0))
    assert plain > 1000 * weighted
    # d/ds of w s^2 E with w fixed at 1 / E: 2.
    slope = jax.grad(lambda s: value(s, SETTINGS)[0])(1.0)
    assert slope == pytest.approx(2.0, rel=1e-3)
    assert sample.t.shape == (6,)
