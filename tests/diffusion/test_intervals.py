"""How distillation draws (t, r)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vosr_jax.diffusion.noise import index_words, row_keys
from vosr_jax.diffusion.timesteps import IntervalSettings, TimeSettings

ROWS = row_keys(jax.random.key(0), jnp.asarray(index_words(np.arange(20_000))))


def intervals(settings: IntervalSettings) -> tuple[np.ndarray, np.ndarray]:
    t, r = settings.interval(settings.draw(ROWS))
    return np.asarray(t), np.asarray(r)


@pytest.mark.parametrize("end", ["beta", "pair"])
@pytest.mark.parametrize("time", [TimeSettings(), TimeSettings("lognorm", -0.4, 1.0)])
def test_r_lies_between_zero_and_t(end: str, time: TimeSettings):
    t, r = intervals(IntervalSettings(time, end))
    assert (r >= 0).all() and (r <= t).all() and (t <= 1).all()


def test_t_is_the_larger_of_two_uniform_draws_and_r_a_share_of_it():
    t, r = intervals(IntervalSettings())
    assert t.mean() == pytest.approx(2 / 3, abs=0.01)
    assert (r / t).mean() == pytest.approx(1 / 2, abs=0.01)
    _, r = intervals(IntervalSettings(alpha=3.0, beta=1.0))
    assert (r / t).mean() == pytest.approx(1 / 4, abs=0.01)


def test_the_shares_of_instants_and_of_single_steps_are_kept():
    t, r = intervals(IntervalSettings(instant_share=0.25, one_step_share=0.5))
    assert (t == r).mean() == pytest.approx(0.25, abs=0.01)
    assert ((t == 1) & (r == 0)).mean() == pytest.approx(0.5, abs=0.01)


def test_a_rows_interval_follows_its_key_alone():
    settings = IntervalSettings(instant_share=0.2, one_step_share=0.2)
    whole, part = settings.draw(ROWS[:8]), settings.draw(ROWS[3:5])
    for name, value in part.items():
        np.testing.assert_array_equal(value, whole[name][3:5])
