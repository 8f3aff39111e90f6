"""Metrics that the step makes of its rows and of its update."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vosr_jax.diffusion.noise import index_words
from vosr_jax.training.state import new_state
from vosr_jax.training.step import TrainStep, loss_by_time
from vosr_jax.training.telemetry import LossByTime


def test_rows_fall_into_tenths_and_those_that_are_not_finite_are_left_out():
    t = jnp.array([0.0, 0.05, 0.1, 0.55, 0.999, 1.0, 0.31])
    losses = jnp.array([1.0, 3.0, 5.0, 7.0, 2.0, 4.0, jnp.nan])
    sums, counts = np.asarray(loss_by_time(losses, t))
    np.testing.assert_array_equal(counts, [2, 1, 0, 0, 0, 1, 0, 0, 0, 2])
    np.testing.assert_array_equal(sums, [4, 5, 0, 0, 0, 7, 0, 0, 0, 6])


def test_means_are_over_all_rows_since_the_last_call_and_empty_tenths_are_left_out():
    by_time = LossByTime()
    rng = np.random.default_rng(0)
    t, losses = rng.uniform(0, 0.7, (5, 4)).astype(np.float32), rng.random((5, 4), np.float32)
    for step in range(5):
        by_time.see({"loss_by_t": loss_by_time(jnp.array(losses[step]), jnp.array(t[step]))})
    taken = by_time.take()
    tenths = np.floor(t * 10).astype(int)
    assert taken.keys() == {f"loss_t{i}" for i in set(tenths.ravel().tolist())}
    for name, value in taken.items():
        expected = losses[tenths == int(name.removeprefix("loss_t"))].mean()
        assert value == pytest.approx(expected, rel=1e-6)
    assert by_time.take() == {}


class Echo(TrainStep):
    """A method whose rows' losses and times are the batch's own."""

    def _whole(self, batch):
        return batch

    def _loss(self, parameters, weights, batch, step, rival):
        rows = jnp.sum(parameters["a"]) * batch["loss"]
        return jnp.mean(rows), {"loss_rows": rows, "t": batch["t"]}


def echo(microbatches: int) -> TrainStep:
    nothing: dict = dict.fromkeys(("network", "frozen", "objective"))
    return Echo(
        **nothing,
        optimizer=optax.sgd(0.5),
        schedule=lambda _: 0.5,
        ema_decay=0.9,
        ema_ramp=False,
        microbatches=microbatches,
        seed=0,
    )


def batch_of(t, losses) -> dict:
    index = index_words(np.arange(len(t)))
    return {"t": jnp.array(t), "loss": jnp.array(losses), "index": jnp.array(index)}


@pytest.mark.parametrize("microbatches", [1, 2, 4])
def test_tenths_and_norms_are_right_with_accumulation(microbatches):
    rng = np.random.default_rng(1)
    t, losses = rng.random(8, np.float32), rng.random(8, np.float32)
    train_step = echo(microbatches)
    state = new_state({"a": jnp.array([0.6, 0.4])}, train_step.optimizer)
    new, metrics = jax.jit(train_step.step)(state, {}, batch_of(t, losses))
    expected = np.histogram(t, 10, (0, 1), weights=losses)[0], np.histogram(t, 10, (0, 1))[0]
    np.testing.assert_allclose(metrics["loss_by_t"], expected, rtol=1e-6)
    moved = np.asarray(new.parameters["a"]) - [0.6, 0.4]
    assert float(metrics["update_norm"]) == pytest.approx(np.linalg.norm(moved), rel=1e-5)
    assert float(metrics["update_norm"]) == pytest.approx(0.5 * float(metrics["grad_norm"]))
    assert float(metrics["param_norm"]) == pytest.approx(np.linalg.norm(new.parameters["a"]))


def test_a_skipped_update_moves_nothing_and_its_rows_do_not_spoil_the_tenths():
    train_step = echo(1)
    state = new_state({"a": jnp.array([0.6, 0.4])}, train_step.optimizer)
    _, metrics = jax.jit(train_step.step)(state, {}, batch_of([0.05, 0.15], [jnp.nan, 2.0]))
    assert float(metrics["skipped"]) == 1 and float(metrics["update_norm"]) == 0
    assert float(metrics["param_norm"]) == pytest.approx(np.hypot(0.6, 0.4))
    np.testing.assert_allclose(metrics["loss_by_t"][:, :2], [[0, 2], [0, 1]])
