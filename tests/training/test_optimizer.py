"""Learning rates, clipping, Muon's share, and the moving average."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.tiny import tiny_config
from vosr_jax.config import OptimizerConfig
from vosr_jax.training.build import denoiser_blueprint
from vosr_jax.training.optimizer import learning_rate_schedule, make_optimizer
from vosr_jax.training.state import TrainState
from vosr_jax.training.step import TrainStep

PEAK, TOTAL = 2.0, 10


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("constant", lambda share: 1.0),
        ("cosine", lambda share: 0.5 * (1 + np.cos(np.pi * share))),
        ("linear", lambda share: 1 - share),
    ],
)
@pytest.mark.parametrize("warmup", [0, 1, 4])
def test_the_rate_warms_up_and_then_follows_its_schedule(kind, expected, warmup):
    schedule = learning_rate_schedule(kind, PEAK, warmup, TOTAL)
    rates = [float(schedule(step)) for step in range(TOTAL + 1)]
    np.testing.assert_allclose(
        rates[:warmup], [PEAK * (k + 1) / warmup for k in range(warmup)], rtol=1e-6
    )
    shares = np.arange(TOTAL + 1 - warmup) / (TOTAL - warmup)
    after = [PEAK * expected(share) for share in shares]
    np.testing.assert_allclose(rates[warmup:], after, atol=1e-6)


def test_gradients_are_clipped_by_their_norm_and_weights_decay():
    config = OptimizerConfig(
        learning_rate=0.1, weight_decay=0.5, max_grad_norm=1.0, beta1=0.0, beta2=0.0, epsilon=1.0
    )
    parameters = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    optimizer = make_optimizer(config, 10)
    state = optimizer.init(parameters)
    large, _ = optimizer.update({"a": jnp.array([30.0]), "b": jnp.array([40.0])}, state, parameters)
    # Clipped to (0.6, 0.8); Adam with an epsilon of 1 gives g / (|g| + 1).
    np.testing.assert_allclose(large["a"], -0.1 * (0.6 / 1.6 + 0.5 * 3.0), rtol=1e-5)
    np.testing.assert_allclose(large["b"], -0.1 * (0.8 / 1.8 + 0.5 * 4.0), rtol=1e-5)
    small, _ = optimizer.update({"a": jnp.array([0.3]), "b": jnp.array([0.4])}, state, parameters)
    np.testing.assert_allclose(small["a"], -0.1 * (0.3 / 1.3 + 0.5 * 3.0), rtol=1e-5)


def test_a_norm_of_0_clips_nothing_and_leaves_the_optimizers_state_as_it_is():
    parameters = {"a": jnp.array([3.0])}
    plain = dict(learning_rate=0.1, weight_decay=0.0, beta1=0.0, beta2=0.0, epsilon=1.0)
    free, clipped = (
        make_optimizer(OptimizerConfig(**plain, max_grad_norm=norm), 10) for norm in (0.0, 1.0)
    )
    update, _ = free.update({"a": jnp.array([30.0])}, free.init(parameters), parameters)
    np.testing.assert_allclose(update["a"], -0.1 * 30 / 31, rtol=1e-5)
    states = [jax.tree.structure(one.init(parameters)) for one in (free, clipped)]
    assert states[0] == states[1], "a run may change its clipping"


@pytest.mark.parametrize(("steps", "warmup"), [(2000, 50), (40, 1), (4, 0)])
def test_a_share_of_the_schedule_warms_up_where_no_steps_are_given(steps, warmup):
    config = OptimizerConfig(learning_rate=PEAK, warmup_steps=None, warmup_share=0.025)
    train_step = TrainStep.from_config(
        tiny_config(optimizer=dataclasses.asdict(config), train={"total_steps": steps}),
        denoiser_blueprint(tiny_config()),
        frozen=None,
    )
    rates = [float(train_step.schedule(step)) for step in range(warmup + 1)]
    np.testing.assert_allclose(
        rates,
        [PEAK * min((k + 1) / max(warmup, 1), 1) for k in range(warmup + 1)],
        rtol=1e-5,
    )


def test_muon_turns_the_blocks_matrices_and_adamw_moves_the_rest():
    config = OptimizerConfig(
        name="muon", learning_rate=1e-3, muon_learning_rate=1e-2, weight_decay=0.0
    )
    rng = np.random.default_rng(0)
    shapes = {"blocks.attn.qkv.kernel": (2, 8, 3, 2, 4), "blocks.norm1.weight": (2, 8)}
    shapes["final.linear.kernel"] = (8, 4)
    values = {k: jnp.asarray(rng.normal(size=v), jnp.float32) for k, v in shapes.items()}
    optimizer = make_optimizer(config, 10)
    updates, _ = optimizer.update(values, optimizer.init(values), values)
    for matrix in np.asarray(updates["blocks.attn.qkv.kernel"]).reshape(2, 8, 24):
        singular = np.linalg.svd(matrix, compute_uv=False)
        assert singular.max() < 2 * singular.min(), "orthogonalized, block by block"
    for name in ("blocks.norm1.weight", "final.linear.kernel"):
        # Adam's first step has one size everywhere; Nesterov's momentum enlarges it.
        size = 1e-3 * (0.9 * 0.1 / (1 - 0.9**2) + 0.1 / (1 - 0.9))
        np.testing.assert_allclose(updates[name], -size * np.sign(values[name]), rtol=1e-2)


@pytest.mark.parametrize("convolutions", [False, True])
def test_muon_turns_residual_convolutions_where_it_is_asked_to(convolutions: bool):
    config = OptimizerConfig(
        name="muon", muon_learning_rate=1e-2, weight_decay=0.0, muon_convolutions=convolutions
    )
    rng = np.random.default_rng(0)
    turned = ("refine.first", "stem_blocks.0.second", "blocks.1.first")
    left = ("embed", "out", "out.spread", "out.refine", "refine.modulation")
    shapes = {f"detailer.{name}.kernel": (3, 3, 4, 6) for name in turned + left}
    # Nearly of rank one, and so is Adam's first step, the sign.
    alike = np.outer(rng.normal(size=36), rng.normal(size=6)).reshape(3, 3, 4, 6)
    values = {
        k: jnp.asarray(alike + 0.1 * rng.normal(size=v), jnp.float32) for k, v in shapes.items()
    }
    optimizer = make_optimizer(config, 10)
    updates, _ = optimizer.update(values, optimizer.init(values), values)
    for name in turned + left:
        matrix = np.asarray(updates[f"detailer.{name}.kernel"]).reshape(36, 6)
        singular = np.linalg.svd(matrix, compute_uv=False)
        is_turned = singular.max() < 2 * singular.min()
        assert is_turned == (convolutions and name in turned), name


def method_with(decay: float, ramp: bool) -> TrainStep:
    config = tiny_config(ema={"decay": decay, "ramp": ramp})
    return TrainStep.from_config(config, denoiser_blueprint(config), frozen=None)


@pytest.mark.parametrize(("step", "decay"), [(0, 0.1), (10, 0.55), (10_000, 0.9)])
def test_the_average_starts_faster_where_it_is_ramped(step: int, decay: float):
    parameters = {"a": jnp.array([1.0])}
    for ramp, expected in ((True, decay), (False, 0.9)):
        train_step = method_with(0.9, ramp)
        state = TrainState(
            jnp.int32(step),
            parameters,
            {"a": jnp.array([0.0])},
            train_step.optimizer.init(parameters),
        )
        new = jax.jit(train_step.update)(state, {"a": jnp.array([0.0])})
        moved = 1 - 1e-3 * 0.01
        np.testing.assert_allclose(new.ema["a"], (1 - expected) * moved, rtol=1e-5)
        assert int(new.step) == step + 1
