"""Four optimizer steps as the official training loop makes them, from recorded draws."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.parity import goldens
from tests.parity.test_objectives import (
    flow_matching_settings,
    network,
    rcgm_settings,
    replay,
    shortcut_settings,
)
from vosr_jax.config import OptimizerConfig
from vosr_jax.diffusion.denoiser import CachedDenoiser
from vosr_jax.diffusion.objectives import loss_of
from vosr_jax.diffusion.parameterization import Parameterization
from vosr_jax.models.lightning_dit.network import LightningDiT
from vosr_jax.models.lightning_dit.weights import entries
from vosr_jax.parameters.blueprint import Blueprint, flatten
from vosr_jax.parameters.tensors import to_official
from vosr_jax.training.optimizer import make_optimizer
from vosr_jax.training.state import TrainState, new_state
from vosr_jax.training.step import TrainStep

# Recorded kind: (the objective's settings, whether the network has r).
KINDS = {
    "multistep": (flow_matching_settings, False),
    "onestep_rcgm": (rcgm_settings, True),
    "onestep_shortcut": (shortcut_settings, True),
}


def kinds() -> list[str]:
    path = goldens.ROOT / "train_trace" / "hyperparameters.json"
    return list(goldens.read_json(path)["initial"]) if path.exists() else ["missing"]


def steps_of(arrays: dict) -> list[str]:
    return sorted({name.split("/")[0] for name in arrays})


def train_step_of(hyper: dict, model: LightningDiT, settings, steps: int) -> TrainStep:
    optimizer = OptimizerConfig(
        learning_rate=hyper["learning_rate"],
        beta1=hyper["adam_beta1"],
        beta2=hyper["adam_beta2"],
        epsilon=hyper["adam_epsilon"],
        weight_decay=hyper["weight_decay"],
        max_grad_norm=hyper["max_grad_norm"],
    )
    return TrainStep(
        network=Blueprint(lambda: model),
        frozen=None,
        objective=settings,
        optimizer=make_optimizer(optimizer, steps),
        schedule=optax.constant_schedule(hyper["learning_rate"]),
        ema_decay=hyper["ema_decay"],
        ema_ramp=False,
        microbatches=1,
        seed=0,
    )


def change_error(ours: np.ndarray, after: np.ndarray, before: np.ndarray) -> float:
    """Root mean square of the difference over that of the change.

    Not the largest: AdamW divides a gradient by its own size, so where one nearly vanishes its
    rounding moves that single element by a visible part of a step. And less one unit in the last
    place: an EMA moves a weight near 1 by some 1e-4, of which that is a thousandth already.
    """
    difference = np.maximum(np.abs(ours - after) - np.spacing(np.abs(after)), 0)
    return float(np.linalg.norm(difference) / np.linalg.norm(after - before))


def run_trace(
    kind: str, dtype: str = "float32", stream_dtype: str = "float32"
) -> tuple[LightningDiT, TrainStep, TrainState, dict[str, tuple[float, float]]]:
    """(model, train step, last state, {step: (loss, gradient norm)}) of a recorded kind.

    Args:
      kind: one of `KINDS`.
      dtype, stream_dtype: of the networks' products and of their residual stream.
    """
    folder = goldens.folder("train_trace")
    hyper = goldens.read_json(folder / "hyperparameters.json")
    arrays = goldens.arrays(folder / f"{kind}.npz")
    settings_of_case, r_embedding = KINDS[kind]
    # "student's weights (teacher: teacher's weights)", or the first alone.
    initial, _, named = hyper["initial"][kind].partition(" (teacher: ")
    formats = jnp.dtype(dtype), jnp.dtype(stream_dtype)
    model = network(Path(initial).stem, r_embedding=r_embedding).with_dtype(*formats)
    form, teacher = Parameterization(), None
    if named:
        of_teacher = network(Path(named.rstrip(")")).stem, r_embedding=False)
        teacher = CachedDenoiser(of_teacher.with_dtype(*formats), form)
    train_step = train_step_of(hyper, model, settings_of_case(hyper), len(steps_of(arrays)))
    objective = loss_of(train_step.objective)

    @jax.jit
    def update(state: TrainState, batch: dict, draws: dict):
        def loss(parameters):
            velocity_fn = CachedDenoiser(train_step.network.merge(parameters), form)
            return objective(
                velocity_fn, batch, None, train_step.objective, teacher_fn=teacher, draws=draws
            )[0]

        value, gradients = jax.value_and_grad(loss)(state.parameters)
        return train_step.update(state, gradients), value, optax.global_norm(gradients)

    state = new_state(flatten(model), train_step.optimizer)
    made = {}
    for step in steps_of(arrays):
        state, loss, norm = update(state, *replay(arrays, f"{step}/"))
        made[step] = float(loss), float(norm)
    return model, train_step, state, made


@pytest.mark.parametrize("kind", kinds())
def test_four_optimizer_steps_are_the_official_ones(kind: str):
    folder = goldens.folder("train_trace")
    arrays = goldens.arrays(folder / f"{kind}.npz")
    model, train_step, state, made = run_trace(kind)
    for step, (loss, norm) in made.items():
        goldens.check(f"train_trace/{kind}/{step}/loss", loss, arrays[f"{step}/loss"], 2e-5)
        goldens.check(f"train_trace/{kind}/{step}/norm", norm, arrays[f"{step}/grad_norm"], 1e-4)

    before = to_official(model, entries(model.settings))
    for part, ours in (("params", state.parameters), ("ema", state.ema)):
        after = goldens.arrays(folder / f"{kind}_{part}_after.safetensors")
        official = to_official(train_step.network.merge(ours), entries(model.settings))
        assert official.keys() <= after.keys()
        for name, array in official.items():
            error = change_error(array, after[name], before[name])
            # Two networks' difference divided by delta: moving the inputs by 1e-7 moves this
            # matrix by 7e-4 of its change.
            sensitive = "rcgm" in kind and name == "t_embedder.mlp.2.weight"
            tolerance = 3e-3 if sensitive else 1e-3
            goldens.record(f"train_trace/{kind}/{part}/{name}", error, tolerance)
