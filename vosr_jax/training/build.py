"""Build a train step from a config and a mesh, and jit it, without any weights.

train.py fills it with arrays; `vosr plan` compiles it from shapes alone.
"""

import dataclasses
import math
import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vosr_jax.config import Config
from vosr_jax.diffusion.parameterization import Parameterization
from vosr_jax.models.attention.dispatch import Attention, attention_on, plain_attention
from vosr_jax.models.gpu_features import GPU_PLATFORMS, Gpu, local_gpu
from vosr_jax.models.lightning_dit.network import LightningDiT
from vosr_jax.parameters.blueprint import Blueprint
from vosr_jax.training.accumulation import Replicas
from vosr_jax.training.frozen import FrozenNets
from vosr_jax.training.sharding import (
    BATCH_AXES,
    ENCODER_RULES,
    Gather,
    make_mesh,
    slices_of,
    state_shardings,
    surrounding_mesh,
)
from vosr_jax.training.state import TrainState
from vosr_jax.training.step import Metrics, TrainStep

# Lanes of a TPU's vector unit. If a shard of a kernel's rows does not fill them, the gradient is
# not scattered: the whole is summed.
_LANES = 128
StepFn = Callable[[TrainState, dict, dict[str, Array]], tuple[TrainState, Metrics]]


def mesh_of(config: Config, devices: list | None = None, slices: int = 0) -> Mesh:
    """Make the mesh of a config.

    Args:
      config: the experiment.
      devices: of the mesh; None takes all of this job's.
      slices: number of slices, if the config does not set it.

    Raises:
      UserError: the mesh does not fit the devices.
    """
    m = config.mesh
    devices = jax.devices() if devices is None else devices
    slices, fsdp = m.slices or slices, m.fsdp
    if fsdp == 0:
        inside = len(slices_of(devices, slices)[0]) // m.tensor
        fsdp = math.gcd(inside, max(config.model.width // _LANES, 1))
    return make_mesh(m.data, fsdp, m.tensor, devices, slices=slices)


def platform_of(mesh: Mesh) -> str:
    """The mesh's platform: "cpu", "gpu" or "tpu"."""
    return mesh.devices.flat[0].platform


def compute_dtype(config: Config, platform: str, gpu: Gpu | None = None) -> jnp.dtype:
    """The compute dtype: bfloat16 if the hardware has it, unless the config sets one.

    Args:
      config: the experiment.
      platform: "cpu", "gpu" or "tpu".
      gpu: the GPU; None takes this process's own.
    """
    if config.model.dtype != "auto":
        return jnp.dtype(config.model.dtype)
    on_gpu = platform in GPU_PLATFORMS and (gpu or local_gpu()).has_bfloat16
    return jnp.dtype(jnp.bfloat16 if platform == "tpu" or on_gpu else jnp.float32)


def gather_on(config: Config, mesh: Mesh) -> Gather | None:
    """The gather of sharded parameters; None if they are replicated."""
    if mesh.shape["fsdp"] == 1:
        return None
    short = config.mesh.gradient_dtype == "bfloat16"
    return Gather(mesh, compute_dtype(config, platform_of(mesh)), short_gradients=short)


def encoder_gather_on(config: Config, mesh: Mesh) -> Gather | None:
    """The gather of the visual encoder's weights; None if they are not sharded over fsdp."""
    gather = gather_on(config, mesh)
    if gather is None or not config.mesh.shard_encoder:
        return None
    return dataclasses.replace(gather, rules=ENCODER_RULES)


def replicas_on(config: Config, mesh: Mesh) -> Replicas | None:
    """The replicas, if each adds up its own gradients; None if every microbatch's are summed."""
    once = config.mesh.gradient_sum == "update" and config.train.microbatches > 1
    if not once or mesh.shape["data"] == 1:
        return None
    return Replicas(mesh, jnp.dtype(config.mesh.gradient_dtype))


def attention_over(config: Config, mesh: Mesh) -> Attention:
    """The platform's best attention, each device on its own rows and heads.

    A kernel runs on one device. If rows or heads do not divide, XLA partitions the plain formula.
    """
    local = attention_on(platform_of(mesh))
    if mesh.size == 1:
        return local
    # Where each replica's gradients are kept apart, the rows are already one replica's.
    axes = BATCH_AXES if replicas_on(config, mesh) is None else ("fsdp",)
    spec = P(axes, None, "tensor", None)
    rows, heads = math.prod(mesh.shape[axis] for axis in axes), mesh.shape["tensor"]

    def attention(query: Array, key: Array, value: Array) -> Array:
        if query.shape[0] % rows or query.shape[2] % heads:
            return plain_attention(query, key, value)
        sharded = jax.shard_map(
            local,
            mesh=surrounding_mesh(mesh),
            in_specs=(spec, spec, spec),
            out_specs=spec,
            axis_names={*axes, "tensor"},
            check_vma=False,
        )
        return sharded(query, key, value)

    return attention


def denoiser_blueprint(
    config: Config,
    mesh: Mesh | None = None,
    attention: Attention | None = None,
    **changes,
) -> Blueprint:
    """The denoiser that a config describes.

    Args:
      config: the experiment.
      mesh: where it will run; None is one device of the default platform.
      attention: its implementation; None is the best for the mesh.
      **changes: settings to replace.
    """
    settings = dataclasses.replace(config.model_settings(), **changes)
    platform = jax.default_backend() if mesh is None else platform_of(mesh)
    dtype = compute_dtype(config, platform)
    if config.objective.name == "mean_flow":
        attention = plain_attention
    elif attention is None:
        attention = attention_on(platform) if mesh is None else attention_over(config, mesh)
    prepare = None if mesh is None else gather_on(config, mesh)
    remat, seed, stream = config.model.remat, config.seed, config.model.stream_dtype

    def build() -> LightningDiT:
        network = LightningDiT(
            settings,
            rngs=nnx.Rngs(params=seed),
            dtype=dtype,
            remat=remat,
            attention=attention,
            prepare=prepare,
        )
        network.stream_dtype = jnp.dtype(stream)
        return network

    return Blueprint(build)


def build_train_step(
    config: Config,
    mesh: Mesh,
    frozen: FrozenNets,
    teacher_parameterization: Parameterization | None = None,
) -> TrainStep:
    """Build the train step of a config on a mesh.

    Args:
      config: the experiment.
      mesh: from `make_mesh`.
      frozen: the frozen nets' structure.
      teacher_parameterization: the meaning of the teacher's output; None without a teacher.
    """
    teacher = {}
    if teacher_parameterization is not None:
        blueprint = denoiser_blueprint(config, mesh, r_embedding=False, lora_rank=0)
        teacher = {"teacher": blueprint, "teacher_parameterization": teacher_parameterization}
    network = denoiser_blueprint(config, mesh)
    gather, replicas = gather_on(config, mesh), replicas_on(config, mesh)
    return TrainStep.from_config(
        config, network, frozen, gather=gather, replicas=replicas, **teacher
    )


def abstract_state(train_step: TrainStep, mesh: Mesh) -> TrainState:
    """Shapes and shardings of the train state."""
    shapes = jax.eval_shape(train_step.new_state)
    return jax.tree.map(
        lambda s, sharding: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding),
        shapes,
        state_shardings(shapes, mesh),
    )


# XLA options by platform: {option: (value, why)}. They are part of the program.
_TPU = {
    "xla_jf_spmd_threshold_for_windowed_einsum_mib": (
        "1000000",
        "a gather that feeds a product stays one collective instead of a loop of permutes around "
        "pieces of the product, so that what is sent can be counted",
    ),
}
_GPU = {
    "xla_gpu_enable_latency_hiding_scheduler": (
        True,
        "gathers and scatters of fsdp run beside the blocks' products",
    ),
}
_GPU_DETERMINISTIC = {
    "xla_gpu_deterministic_ops": (True, "no atomics, whose order changes from run to run"),
    "xla_gpu_autotune_level": (
        0,
        "kernels by rule instead of by a measurement, which may choose others the next time",
    ),
}


def compiler_options(platform: str, *, deterministic: bool = False) -> dict[str, str | bool | int]:
    """Options for `jax.jit(compiler_options=...)`.

    Args:
      platform: "tpu", "gpu" or "cpu".
      deterministic: give the same bits in every run on equal devices, on GPU too, where it costs
        speed. TPU and CPU programs are deterministic anyway.
    """
    by_platform: dict[str, dict] = {"tpu": _TPU, "gpu": _GPU}
    chosen = by_platform.get(platform, {})
    if platform == "gpu" and deterministic:
        chosen = chosen | _GPU_DETERMINISTIC
    given = {
        argument.lstrip("-").split("=")[0]
        for variable in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
        for argument in os.environ.get(variable, "").split()
    }
    return {option: value for option, (value, _) in chosen.items() if option not in given}


def jit_train_step(train_step: TrainStep, abstract_state: TrainState, mesh: Mesh) -> StepFn:
    """Jit the step: state donated and sharded, teacher sharded, rows over the batch axes.

    Args:
      train_step: what to run.
      abstract_state: shapes of the state.
      mesh: from `make_mesh`.

    Returns:
      (state, frozen weights, batch) -> (state, metrics), metrics replicated.
    """
    platform = mesh.devices.flat[0].platform
    states, everywhere = state_shardings(abstract_state, mesh), NamedSharding(mesh, P())
    # None: `weight_shardings` has placed the weights, `put_batch` and `put_notes` the batch. Their
    # trees are not known here.
    return jax.jit(
        train_step.step,
        in_shardings=(states, None, None),
        out_shardings=(states, everywhere),
        donate_argnums=0,
        compiler_options=compiler_options(platform, deterministic=train_step.deterministic) or None,
    )
