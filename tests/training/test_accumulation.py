"""A batch in parts is the whole batch, for every objective and setting that could tell."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.simulated import on_devices
from tests.training.tiny import tiny_batch, tiny_config
from vosr_jax.diffusion.noise import columns_index
from vosr_jax.diffusion.objectives import ends_at_a_picture
from vosr_jax.training.build import denoiser_blueprint, mesh_of
from vosr_jax.training.setup import load_train_step
from vosr_jax.training.state import new_state

ROWS = 12
DISTILLATIONS = ("rcgm", "shortcut", "mean_flow")


def config_of(objective: str, parts: int, chunks: int, changes: dict):
    """A network of one block on 16-pixel crops; keys of `changes` override whole settings."""
    distils = objective != "flow_matching"
    sections: dict = {
        "model": {"width": 16, "depth": 1, "heads": 2, "r_embedding": distils},
        "objective": {"name": objective},
        "data": {"crop_size": 16},
        "train": {"batch_size": ROWS, "microbatches": parts, "frozen_chunks": chunks},
    }
    if distils:
        sections["objective"] |= {"one_step_share": 0.3, "instant_share": 0.2}
    for name, values in changes.items():
        sections[name] = sections.get(name, {}) | values
    return tiny_config(**sections)


@functools.cache
def moved(shapes: tuple) -> dict:
    """Parameters none of which are zero."""
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.05, shape).astype(np.float32) for name, shape in shapes}


def outcome(config) -> tuple[float, dict, dict]:
    """(loss, gradient, metrics) of one batch."""
    train_step, weights = load_train_step(config, mesh_of(config, jax.devices()[:1]))
    if config.distils:
        teacher = denoiser_blueprint(config, r_embedding=False)
        train_step = dataclasses.replace(train_step, teacher=teacher)
        weights["teacher"] = moved(tuple((k, v.shape) for k, v in teacher.shapes.items()))
    parameters = moved(tuple((k, v.shape) for k, v in train_step.network.shapes.items()))
    batch = tiny_batch(5, ROWS, 16)
    gradient, loss, metrics = jax.jit(train_step.gradient)(parameters, weights, batch, 0)
    return float(loss), gradient, metrics


@pytest.fixture
def squares_for_lpips(monkeypatch):
    """A distance that compiles fast; what it weighs is the same."""
    squares = lambda weights, a, b: jnp.mean((a - b) ** 2, axis=(1, 2, 3))  # noqa: E731
    monkeypatch.setattr("vosr_jax.training.pixel_losses.lpips", squares)


PERCEPTUAL = {"perceptual_weight": 2.0, "perceptual_crop": 16}
NONE = {"guidance": {"kind": "none"}}
OTHER = {"encoder": {"kind": "vgg16", "block": 0, "tokens_of": "other", "token_width": 64}}
FAST = [
    ("flow_matching", {"objective": PERCEPTUAL | {"perceptual_rows": 5, "perceptual_power": 1.0}}),
]
SLOW = [
    ("rcgm", {"objective": PERCEPTUAL}),
    ("flow_matching", OTHER),
    ("rcgm", {"objective": PERCEPTUAL | {"perceptual_rows": 2}}),
    ("flow_matching", {"objective": PERCEPTUAL}),
    *((name, {"objective": PERCEPTUAL | {"perceptual_rows": 3}}) for name in DISTILLATIONS[1:]),
    *itertools.product(("flow_matching", *DISTILLATIONS), ({}, NONE)),
    ("shortcut", {"guidance": {"kind": "classifier_free"}, "objective": {"endpoint": "residual"}}),
    ("mean_flow", {"objective": {"prediction": "endpoint", "endpoint": "residual"}}),
    ("flow_matching", {"guidance": {"drop_rate": 0.5}, "objective": {"prediction": "endpoint"}}),
]


def compare(objective: str, changes: dict, divisions) -> None:
    loss, gradient, metrics = outcome(config_of(objective, 1, 1, changes))
    assert np.isfinite(loss) and loss > 0
    for parts, chunks in divisions:
        found, found_gradient, found_metrics = outcome(config_of(objective, parts, chunks, changes))
        assert found == pytest.approx(loss, rel=2e-5), (parts, chunks)
        assert found_metrics.keys() == metrics.keys()
        for name, value in metrics.items():
            np.testing.assert_allclose(
                found_metrics[name], value, rtol=1e-4, atol=1e-5, err_msg=name
            )
        scale = max(float(jnp.abs(value).max()) for value in gradient.values())
        for name, value in gradient.items():
            np.testing.assert_allclose(
                found_gradient[name], value, rtol=1e-3, atol=1e-5 * scale, err_msg=name
            )


def ids(case) -> str:
    return "-".join(f"{k}={v}" for section in case.values() for k, v in section.items()) or "plain"


@pytest.mark.parametrize(
    ("objective", "changes"), FAST, ids=[f"{name}-{ids(changes)}" for name, changes in FAST]
)
@pytest.mark.usefixtures("squares_for_lpips")
def test_four_parts_are_the_whole_where_rows_know_of_each_other(objective: str, changes: dict):
    compare(objective, changes, [(4, 1)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "changes"),
    SLOW,
    ids=[f"{name}-{ids(changes)}" for name, changes in SLOW],
)
@pytest.mark.usefixtures("squares_for_lpips")
def test_any_parts_are_the_whole_for_every_objective_and_setting(objective: str, changes: dict):
    compare(objective, changes, [(4, 3)])


@pytest.mark.slow
def test_four_parts_are_the_whole_with_the_true_distance():
    compare("rcgm", {"objective": PERCEPTUAL | {"perceptual_rows": 3}}, [(2, 3), (12, 1)])


def test_the_rows_that_are_compared_are_the_first_wanted_ones_of_the_batch():
    config = config_of("rcgm", 4, 1, {"objective": PERCEPTUAL | {"perceptual_rows": 2}})
    train_step, _ = load_train_step(config, mesh_of(config, jax.devices()[:1]))
    key, index = jax.random.key(config.seed), tiny_batch(5, ROWS, 16)["index"]
    wanted = np.flatnonzero(ends_at_a_picture(config.objective_settings(), key, index))
    assert 2 < len(wanted) < ROWS
    shares = np.asarray(train_step.perceptual.shares(key, index))
    assert np.flatnonzero(shares).tolist() == wanted[:2].tolist()
    assert shares.mean() == pytest.approx(1.0) and shares.max() == ROWS / 2


def test_the_steps_metrics_name_the_samples_of_their_rows():
    config = config_of("flow_matching", 4, 1, {})
    train_step, weights = load_train_step(config, mesh_of(config, jax.devices()[:1]))
    state = new_state(train_step.network.initialize(), train_step.optimizer)
    batch = tiny_batch(5, ROWS, 16)
    _, metrics = jax.jit(train_step.step)(state, weights, batch)
    assert columns_index(metrics).tolist() == list(range(60, 72))
    assert metrics["loss_rows"].shape == (ROWS,) and "notes" not in metrics


@pytest.mark.slow
def test_replicas_that_are_summed_once_per_update_train_alike_and_send_less():
    results = on_devices(4, "tests.training.sums_on_a_mesh")
    each, once, short = (results[name] for name in ("microbatch", "update", "short"))
    assert len(set(each["losses"])) == len(each["losses"]) == 4
    for found, tolerance in ((once, 1e-6), (short, 1e-4)):
        for name in ("losses", "norms", "rows"):
            np.testing.assert_allclose(found[name], each[name], rtol=tolerance)
    # Four microbatches: a quarter of the sums, and what the metrics send.
    assert once["sent"] < 0.3 * each["sent"]
    assert short["losses"] != once["losses"], "short gradients are not the float32 ones"
