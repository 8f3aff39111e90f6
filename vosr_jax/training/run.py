"""Setting a run up: mesh, networks, state and its restoration. The loop itself is in loop.py."""

import dataclasses

from jax.sharding import Mesh

from vosr_jax.config import Config
from vosr_jax.console import say
from vosr_jax.data.pipeline import PipelineSettings
from vosr_jax.errors import UserError
from vosr_jax.training.base import Base, check_base, open_base
from vosr_jax.training.beginning import begin, weights_of
from vosr_jax.training.build import (
    abstract_state,
    attention_over,
    build_method,
    compute_dtype,
    encoder_gather_on,
    mesh_of,
    platform_of,
)
from vosr_jax.training.checkpoints import Checkpoints
from vosr_jax.training.frozen import open_frozen
from vosr_jax.training.gathering import stored
from vosr_jax.training.perceptual import perceptual_weights
from vosr_jax.training.placing import place
from vosr_jax.training.sharding import weight_shardings
from vosr_jax.training.state import TrainState
from vosr_jax.training.step import Method
from vosr_jax.training.teacher import Teacher, check_identity, open_teacher


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
      base: path, name and sha256 of what adapters are trained around, or None.
      first: (finished steps, samples seen) when this process took the run up.
    """

    config: Config
    mesh: Mesh
    method: Method
    weights: dict
    state: TrainState
    abstract_state: TrainState
    teacher: dict[str, str] | None = None
    base: dict[str, str] | None = None
    first: tuple[int, int] = (0, 0)

    @property
    def step(self) -> int:
        """Finished steps."""
        return int(self.state.step)

    def samples_seen(self, step: int) -> int:
        """Samples in all steps up to this one, also where earlier ones had another batch size."""
        begun, seen = self.first
        return seen + (step - begun) * self.config.train.batch_size


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
        degradation=data.degradation,
        max_bad_fraction=data.max_bad_fraction,
        cache_bytes=data.cache_bytes,
    )


def load_method(
    config: Config, mesh: Mesh, teacher: Teacher | None = None, base: Base | None = None
) -> tuple[Method, dict]:
    """The method of a config, and the weights of its frozen nets, teacher and base on the devices.

    A base that is needed and not given is opened. Every process reads what its own devices hold,
    one array after another.

    Raises:
      UserError: a file is missing or damaged, or does not fit the config.
    """
    dtype = compute_dtype(config, platform_of(mesh))
    gather, attention = encoder_gather_on(config, mesh), attention_over(mesh)
    frozen, weights = open_frozen(config, dtype, gather, attention)
    weights["encoder"] = stored(weights["encoder"], dtype)
    weights |= perceptual_weights(config)
    form = None
    if teacher is not None:
        weights["teacher"] = stored(teacher.parameters, dtype)
        form = teacher.parameterization
    if (base := base or open_base(config)) is not None:
        weights["base"] = stored(base.parameters, dtype)
    shardings = weight_shardings(weights, mesh, shard_encoder=config.mesh.shard_encoder)
    return build_method(config, mesh, frozen, form), place(weights, shardings)


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
    teacher = open_teacher(config)
    identity = None if teacher is None else teacher.identity
    if checkpoints.find() is not None:
        check_identity(identity, checkpoints.progress().teacher, str(checkpoints.find()))
    base = open_base(config)
    around = None if base is None else base.identity
    if checkpoints.find() is not None:
        check_base(around, checkpoints.progress().base, str(checkpoints.find()))
    method, weights = load_method(config, mesh, teacher, base)
    if not config.optimizer.max_grad_norm:
        say("optimizer.max_grad_norm=0: gradients are not clipped")

    abstract = abstract_state(method, mesh)
    first = (0, 0)
    if checkpoints.find() is not None:
        state = checkpoints.restore(abstract)
        first = int(state.step), checkpoints.progress().samples_seen
        say(f"resumed at step {first[0]} of {checkpoints.folder}, after {first[1]} samples")
    elif base is not None:
        state = begin(method, abstract)
        say(f"begun at step 0 with new adapters of train.init_from={config.train.init_from}")
    elif config.train.init_from:
        source = f"train.init_from={config.train.init_from}"
        state = begin(method, abstract, weights_of(config.train.init_from), source)
        say(f"begun at step 0 with the weights of {source}")
    elif teacher is not None:
        state = begin(method, abstract, teacher.parameters, f"teacher={config.teacher}")
        say(f"begun at step 0 as teacher={config.teacher}")
    else:
        state = begin(method, abstract)
        say("begun at step 0")
    return Run(config, mesh, method, weights, state, abstract, identity, around, first)
