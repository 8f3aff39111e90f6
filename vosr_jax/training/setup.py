"""Set up a run: mesh, networks, and a new or restored state. The loop is in loop.py."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from vosr_jax.config import Config
from vosr_jax.console import say
from vosr_jax.data.pipeline import PipelineSettings
from vosr_jax.errors import UserError
from vosr_jax.training.build import (
    abstract_state,
    attention_over,
    build_train_step,
    compute_dtype,
    encoder_gather_on,
    mesh_of,
    platform_of,
)
from vosr_jax.training.checkpoints import Checkpoints
from vosr_jax.training.frozen import open_frozen
from vosr_jax.training.pixel_losses import perceptual_weights
from vosr_jax.training.placing import place
from vosr_jax.training.sharding import cast_frozen, weight_shardings
from vosr_jax.training.state import TrainState
from vosr_jax.training.step import TrainStep
from vosr_jax.training.teacher import (
    Base,
    Teacher,
    check_base,
    check_identity,
    open_base,
    open_teacher,
)
from vosr_jax.weights.opening import open_denoiser
from vosr_jax.weights.resolve import resolve

_R_EMBEDDING = "r_embedding."


@dataclasses.dataclass
class Run:
    """Everything that the loop works with.

    Attributes:
      config: the experiment.
      mesh: devices.
      train_step: what a step does.
      weights: the frozen nets' weights, on the devices.
      state: of the last finished step.
      abstract_state: shapes and shardings of the state.
      teacher: path and sha256 of the teacher, or None.
      base: path, name and sha256 of the adapters' base, or None.
      first: (finished steps, samples seen) when this process started or resumed the run.
    """

    config: Config
    mesh: Mesh
    train_step: TrainStep
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
        """Samples in all steps up to this one, even if earlier steps had another batch size."""
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


def load_train_step(
    config: Config, mesh: Mesh, teacher: Teacher | None = None, base: Base | None = None
) -> tuple[TrainStep, dict]:
    """Load a config's train step, and put the weights that it needs on the devices.

    These are the weights of the frozen nets, the teacher and the base. A base that is needed but
    not given is opened. Every process reads its own devices' shards, one array after another.

    Raises:
      UserError: a file is missing or damaged, or does not fit the config.
    """
    dtype = compute_dtype(config, platform_of(mesh))
    gather, attention = encoder_gather_on(config, mesh), attention_over(config, mesh)
    frozen, weights = open_frozen(config, dtype, gather, attention)
    weights["encoder"] = cast_frozen(weights["encoder"], dtype)
    weights |= perceptual_weights(config)
    parameterization = None
    if teacher is not None:
        weights["teacher"] = cast_frozen(teacher.parameters, dtype)
        parameterization = teacher.parameterization
    if (base := base or open_base(config)) is not None:
        weights["base"] = cast_frozen(base.parameters, dtype)
    shardings = weight_shardings(weights, mesh, shard_encoder=config.mesh.shard_encoder)
    return build_train_step(config, mesh, frozen, parameterization), place(weights, shardings)


def start_run(config: Config, checkpoints: Checkpoints) -> Run:
    """Start a new run, or resume the one whose checkpoints are given.

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
    train_step, weights = load_train_step(config, mesh, teacher, base)
    if not config.optimizer.max_grad_norm:
        say("optimizer.max_grad_norm=0: gradients are not clipped")

    abstract = abstract_state(train_step, mesh)
    first = (0, 0)
    if checkpoints.find() is not None:
        state = checkpoints.restore(abstract)
        first = int(state.step), checkpoints.progress().samples_seen
        say(f"resumed at step {first[0]} of {checkpoints.folder}, after {first[1]} samples")
    elif base is not None:
        state = begin(train_step, abstract)
        say(f"begun at step 0 with new adapters of train.init_from={config.train.init_from}")
    elif config.train.init_from:
        source = f"train.init_from={config.train.init_from}"
        state = begin(train_step, abstract, weights_of(config.train.init_from), source)
        say(f"begun at step 0 with the weights of {source}")
    elif teacher is not None:
        state = begin(train_step, abstract, teacher.parameters, f"teacher={config.teacher}")
        say(f"begun at step 0 as teacher={config.teacher}")
    else:
        state = begin(train_step, abstract)
        say("begun at step 0")
    return Run(config, mesh, train_step, weights, state, abstract, identity, around, first)


def weights_of(name_or_path: str) -> Mapping[str, Any]:
    """Initial weights, `train.init_from`: by dotted path, not loaded yet.

    Raises:
      UserError: there is no such model, or it is damaged.
    """
    return open_denoiser(resolve(name_or_path, "train.init_from")).network.parameters


def begin(
    train_step: TrainStep,
    abstract: TrainState,
    given: Mapping[str, Any] | None = None,
    source: str = "",
) -> TrainState:
    """Make a new state on the devices; no device ever holds more than its shard.

    A student begins as its teacher. If the weights are a multi-step network's, the embedding of r
    keeps its own initialization, and the factor t - r leaves the teacher's velocity at r = t.

    Args:
      train_step: what is trained.
      abstract: shapes and shardings of the state.
      given: parameters and EMA by dotted path; None initializes them. The optimizer is new.
      source: where these come from, for messages.

    Raises:
      UserError: a given parameter is missing, unexpected or misshapen; the message names it.
    """
    if given is None:
        return beginning(train_step, abstract, given=False)()
    names = _checked(given, source, abstract)
    where = _shardings(abstract).parameters
    own = {k: where[k] for k in where.keys() - names}
    parameters = place({k: given[k] for k in names}, {k: where[k] for k in names})
    if own:
        # XLA computes only those initial values that are returned.
        parameters |= jax.jit(
            lambda: {k: v for k, v in train_step.network.initialize().items() if k in own},
            out_shardings=own,
        )()
    return beginning(train_step, abstract, given=True)(parameters)


def beginning(train_step: TrainStep, abstract: TrainState, *, given: bool) -> Any:
    """Jit the program that makes a new state.

    Args:
      train_step: what is trained.
      abstract: shapes and shardings of the state.
      given: whether the program takes placed parameters, which are donated, or initializes them.
    """
    shardings = _shardings(abstract)
    if given:
        return jax.jit(train_step.new_state, out_shardings=shardings, donate_argnums=0)
    return jax.jit(train_step.new_state, out_shardings=shardings)


def _shardings(abstract: TrainState) -> TrainState:
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)


def _checked(given: Mapping[str, Any], source: str, abstract: TrainState) -> list[str]:
    """Names of the given parameters, after a check of their shapes."""
    wanted = abstract.parameters
    optional = not any(name.startswith(_R_EMBEDDING) for name in given)
    names = []
    for name, shape in wanted.items():
        if name in given and given[name].shape == shape.shape:
            names.append(name)
        elif name in given or not (optional and name.startswith(_R_EMBEDDING)):
            raise UserError(
                f"{source}: {name} should be {shape.shape} and is "
                f"{given[name].shape if name in given else 'missing'}; it is of another model"
            )
    extra = sorted(given.keys() - wanted.keys())
    if extra:
        raise UserError(f"{source} has {extra[0]}, which this model has not")
    return names
