"""Run by test_sharding.py in a process with 8 simulated devices; prints JSON.

For each mesh: the losses of some steps, and the shapes of one device's shard of parameters,
EMA and optimizer slots.
"""

import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tests.training.tiny import tiny_batch, tiny_config
from vosr_jax.models.autoencoders.space_to_depth import SpaceToDepth, SpaceToDepthSettings
from vosr_jax.models.dinov2.network import DINOv2, DINOv2Settings
from vosr_jax.models.lora import base_of, trained_of
from vosr_jax.parameters.blueprint import Blueprint
from vosr_jax.training.build import denoiser_blueprint, jit_train_step
from vosr_jax.training.frozen import FrozenNets
from vosr_jax.training.placing import put_batch
from vosr_jax.training.sharding import make_mesh, state_shardings, weight_shardings
from vosr_jax.training.state import new_state
from vosr_jax.training.step import TrainStep

STEPS, ROWS = 10, 16
WATCHED = ("blocks.attn.qkv.kernel", "blocks.mlp.gate_up.kernel", "blocks.cross_attn.key.kernel")
THIN = ("blocks.attn.qkv.lora.down", "blocks.mlp.gate_up.lora.down", "blocks.attn.proj.lora.down")


def tiny_method(*, distils: bool = False, rank: int = 0) -> tuple[TrainStep, dict]:
    """A denoiser with every kind of parameter, visual tokens of a random encoder included."""
    student: dict = {"model": {"r_embedding": True}, "objective": {"name": "rcgm"}}
    config = tiny_config(
        objective=student["objective"] if distils else {},
        model={"remat": "full", "swiglu_multiple": 8, "lora_rank": rank}
        | (student["model"] if distils else {}),
        encoder={"kind": "dinov2", "path": "none", "token_width": 16},
        train={"batch_size": ROWS},
        optimizer={"schedule": "cosine", "warmup_steps": 2},
    )
    settings = DINOv2Settings(width=16, depth=1, heads=2, ffn_width=16, grid=2)
    encoder = Blueprint(lambda: DINOv2(settings, rngs=nnx.Rngs(0)))
    frozen = FrozenNets(
        autoencoder=Blueprint(lambda: SpaceToDepth(SpaceToDepthSettings(2, 1.0))),
        encoder=encoder,
        encoder_size=28,
        encoder_block=0,
        encoder_dtype=jnp.dtype(jnp.float32),
        sample_posterior=False,
    )
    weights = {"autoencoder": {}, "encoder": encoder.initialize()}
    network = denoiser_blueprint(config)
    if rank:
        weights["base"] = moved(base_of(network.initialize()))
    if not distils:
        return TrainStep.from_config(config, network, frozen), weights
    teacher = denoiser_blueprint(config, r_embedding=False)
    weights["teacher"] = moved(teacher.initialize())
    return TrainStep.from_config(config, network, frozen, teacher=teacher), weights


def moved(parameters: dict) -> dict:
    """Parameters none of which are zero, so that the teacher says something."""
    rng = np.random.default_rng(0)
    return {
        k: np.asarray(v) + rng.normal(0, 0.05, v.shape).astype(np.float32)
        for k, v in parameters.items()
    }


def run(train_step: TrainStep, weights: dict, axes: tuple[int, int, int], devices: int) -> dict:
    """Losses and shard shapes of one mesh."""
    mesh = make_mesh(*axes, devices=jax.devices()[:devices])

    def initialize():
        return new_state(trained_of(train_step.network.initialize()), train_step.optimizer)

    abstract = jax.eval_shape(initialize)
    state = jax.device_put(initialize(), state_shardings(abstract, mesh))
    weights = jax.device_put(weights, weight_shardings(weights, mesh))
    step_fn = jit_train_step(train_step, abstract, mesh)
    losses, norms = [], []
    for step in range(STEPS):
        batch = {k: np.asarray(v) for k, v in tiny_batch(step, ROWS).items()}
        state, metrics = step_fn(state, weights, put_batch(batch, mesh))
        losses.append(float(metrics["loss"]))
        norms.append(float(metrics["grad_norm"]))
    shards = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = str(getattr(path[-1], "key", ""))
        if name in WATCHED + THIN:
            shape = leaf.addressable_shards[0].data.shape
            shards.setdefault(name, []).append([list(leaf.shape), list(shape)])
    rows = [float(x) for x in metrics["loss_rows"]]
    teacher, base = (
        {
            name: [list(value.shape), list(value.addressable_shards[0].data.shape)]
            for name, value in weights.get(net, {}).items()
            if name in WATCHED
        }
        for net in ("teacher", "base")
    )
    return dict(losses=losses, norms=norms, rows=rows, shards=shards, teacher=teacher, base=base)


def main() -> None:
    """`--only NAME...` runs these meshes, `--except NAME...` all others."""
    assert jax.device_count() == 8, jax.device_count()
    which, *names = sys.argv[1:]
    plain, student, adapted = tiny_method(), tiny_method(distils=True), tiny_method(rank=2)
    halved = dataclasses.replace(plain[0], microbatches=2), plain[1]
    runs = {
        "single": (plain, (1, 1, 1), 1),
        "fsdp 8": (plain, (1, 8, 1), 8),
        "data 8": (plain, (8, -1, 1), 8),
        "data 2 fsdp 4": (plain, (2, 4, 1), 8),
        "data 2 fsdp 2 tensor 2": (plain, (2, 2, 2), 8),
        "microbatches": (halved, (2, 2, 2), 8),
        "adapters, single": (adapted, (1, 1, 1), 1),
        "adapters, fsdp 8": (adapted, (1, 8, 1), 8),
        "adapters, data 2 fsdp 2 tensor 2": (adapted, (2, 2, 2), 8),
        "distilled, single": (student, (1, 1, 1), 1),
        "distilled, fsdp 8": (student, (1, 8, 1), 8),
        "distilled, data 2 fsdp 2 tensor 2": (student, (2, 2, 2), 8),
    }
    wanted = [name for name in runs if (name in names) == (which == "--only")]
    results = {name: run(*runs[name][0], *runs[name][1:]) for name in wanted}
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
