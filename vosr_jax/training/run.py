"""Setting a run up: mesh, networks, state and its restoration. The loop itself is in loop.py."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from vosr_jax.config import Config
from vosr_jax.data.degradation import RealESRGANSettings
from vosr_jax.data.pipeline import PipelineSettings
from vosr_jax.errors import UserError
from vosr_jax.training.build import (
    abstract_state,
    build_method,
    compute_dtype,
    encoder_gather_on,
    mesh_of,
    platform_of,
)
from vosr_jax.training.checkpoints import Checkpoints
from vosr_jax.training.frozen import load_frozen
from vosr_jax.training.gathering import stored
from vosr_jax.training.log import say
from vosr_jax.training.perceptual import perceptual_weights
from vosr_jax.training.sharding import describe, weight_shardings
from vosr_jax.training.state import TrainState, new_state
from vosr_jax.training.step import Method
from vosr_jax.training.teacher import TeacherWeights, check_identity, load_teacher

_R_EMBEDDING = "r_embedding."


@dataclasses.dataclass
class Run:
    """Everything that the loop works with.

    Attributes:
      config: the experiment.
      mesh: devices.
      method: what a step does.
      weights: the frozen nets' weights, on the devices.
      state: of the last finished step.
      abstract_state: shapes and shardings of the state.
      teacher: path and sha256 of the teacher, or None.
    """

    config: Config
    mesh: Mesh
    method: Method
    weights: dict
    state: TrainState
    abstract_state: TrainState
    teacher: dict[str, str] | None = None

    @property
    def step(self) -> int:
        """Finished steps."""
        return int(self.state.step)


def pipeline_settings(config: Config) -> PipelineSettings:
    """The data pipeline of a config."""
    data = config.data
    return PipelineSettings(
        sources=data.sources,
        seed=config.seed,
        batch_size=config.train.batch_size,
        crop_size=data.crop_size,
        scale=data.scale,
        flip=data.flip,
        workers=data.workers,
        degradation=degradation_settings(config),
        max_bad_fraction=data.max_bad_fraction,
        cache_bytes=data.cache_bytes,
    )


def degradation_settings(config: Config) -> RealESRGANSettings:
    """The official degradation, with the JPEG variant and the extras that the config names."""
    data = config.data
    return RealESRGANSettings(
        jpeg=data.degradation,
        grey_probability=data.grey_probability,
        jitter_probability=data.jitter_probability,
    )


def load_method(
    config: Config, mesh: Mesh, teacher: TeacherWeights | None = None
) -> tuple[Method, dict]:
    """The method of a config and the weights of its frozen nets and teacher, on the host.

    Raises:
      UserError: a file is missing or damaged, or does not fit the config.
    """
    dtype = compute_dtype(config, platform_of(mesh))
    frozen, weights = load_frozen(config, dtype, encoder_gather_on(config, mesh))
    weights["encoder"] = stored(weights["encoder"], dtype)
    weights |= perceptual_weights(config)
    if teacher is None:
        return build_method(config, mesh, frozen), weights
    weights["teacher"] = stored(teacher.parameters, dtype)
    return build_method(config, mesh, frozen, teacher.parameterization), weights


def start_run(config: Config, checkpoints: Checkpoints) -> Run:
    """A new run, or the continuation of the one whose checkpoints these are.

    Raises:
      UserError: mesh, teacher, weights or checkpoint do not fit the config.
    """
    mesh = mesh_of(config)
    rows = config.train.batch_size // config.train.microbatches
    if rows % (mesh.shape["data"] * mesh.shape["fsdp"]):
        raise UserError(
            f"train.batch_size / train.microbatches is {rows}; it must be a multiple of "
            f"mesh.data * mesh.fsdp = {mesh.shape['data'] * mesh.shape['fsdp']}"
        )
    teacher = load_teacher(config)
    identity = None if teacher is None else teacher.identity
    if checkpoints.latest() is not None:
        check_identity(identity, checkpoints.teacher(), str(checkpoints.latest()))
    method, weights = load_method(config, mesh, teacher)
    say(describe(method.network.shapes, mesh))

    abstract = abstract_state(method, mesh)
    if checkpoints.latest() is not None:
        state = checkpoints.restore(abstract)
        say(f"resumed at step {int(state.step)}")
    else:
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        state = jax.jit(
            lambda: new_state(method.network.initialize(), method.optimizer),
            out_shardings=shardings,
        )()
        if config.train.init_from:
            given = _weights_of(config.train.init_from)
            state = started_from(given, f"train.init_from={config.train.init_from}", state)
        elif teacher is not None:
            state = started_from(teacher.parameters, f"teacher={config.teacher}", state)
    shardings = weight_shardings(weights, mesh, shard_encoder=config.mesh.shard_encoder)
    weights = jax.device_put(weights, shardings)
    return Run(config, mesh, method, weights, state, abstract, identity)


def _weights_of(path: str) -> dict:
    """Averaged weights of another run, export or release, by dotted path."""
    from vosr_jax.models.parameters import flatten
    from vosr_jax.training.checkpoints import load_ema_export
    from vosr_jax.weights import load_denoiser
    from vosr_jax.weights.export import is_export, load_export

    if is_export(path):
        _, model = load_export(path)
    elif (Path(path) / "config.json").exists():
        _, model = load_ema_export(path)
    else:
        model, _ = load_denoiser(path)
    return flatten(model)


def started_from(given: Mapping[str, Any], source: str, state: TrainState) -> TrainState:
    """Parameters and EMA from other weights; optimizer and step stay new.

    A student begins as its teacher: where the weights are a multi-step network's, the embedding
    of r keeps its own beginning, and the factor t - r leaves the teacher's velocity at r = t.

    Args:
      given: weights by dotted path.
      source: where they come from, for messages.
      state: a new one, laid out over the devices.

    Raises:
      UserError: a parameter is missing, unexpected or misshapen; it is named.
    """
    given = dict(given)
    if not any(name.startswith(_R_EMBEDDING) for name in given):
        given |= {k: v for k, v in state.parameters.items() if k.startswith(_R_EMBEDDING)}
    for name, wanted in state.parameters.items():
        if name not in given or given[name].shape != wanted.shape:
            raise UserError(
                f"{source}: {name} should be {wanted.shape} and is "
                f"{given[name].shape if name in given else 'missing'}; it is of another model"
            )
    extra = given.keys() - state.parameters.keys()
    if extra:
        raise UserError(f"{source} has {sorted(extra)[0]}, which this model has not")
    placed = {k: jax.device_put(given[k], v.sharding) for k, v in state.parameters.items()}
    # Two copies: the step is given both to write into, and device_put may not copy at all.
    parameters, ema = (jax.tree.map(jnp.copy, placed) for _ in range(2))
    return dataclasses.replace(state, parameters=parameters, ema=ema)
