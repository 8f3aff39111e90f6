"""Trace a config's training step from shapes alone, for devices that need not exist.

The trace also gives the count of its floating-point operations.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vosr_jax.config import Config
from vosr_jax.diffusion.parameterization import Parameterization
from vosr_jax.errors import UserError
from vosr_jax.models.attention.dispatch import plain_attention
from vosr_jax.models.autoencoders.qwen import QwenAutoencoder, QwenSettings
from vosr_jax.models.autoencoders.sd import SDAutoencoder, SDSettings
from vosr_jax.models.autoencoders.space_to_depth import SpaceToDepth, SpaceToDepthSettings
from vosr_jax.models.dinov2.network import DINOv2, DINOv2Settings
from vosr_jax.models.lora import adapters_of, base_of
from vosr_jax.models.vgg import VGG16, VGG16Settings
from vosr_jax.training.build import (
    abstract_state,
    attention_over,
    build_train_step,
    compute_dtype,
    denoiser_blueprint,
    encoder_gather_on,
    jit_train_step,
    platform_of,
)
from vosr_jax.training.data_failures import notes_length
from vosr_jax.training.frozen import frozen_nets
from vosr_jax.training.pixel_losses import perceptual_weights
from vosr_jax.training.sharding import (
    AXES,
    batch_sharding,
    is_matmul_param,
    make_mesh,
    weight_shardings,
)
from vosr_jax.training.state import TrainState
from vosr_jax.training.step import TrainStep

_ENCODERS = {
    "dinov2s": DINOv2Settings.vit_s,
    "dinov2b": DINOv2Settings.vit_b,
    "dinov2l": DINOv2Settings.vit_l,
    "dinov2g": DINOv2Settings.vit_g,
}


def product_flops(function: Callable, *arguments: Any) -> int:
    """Count the operations of a call's matrix products and convolutions; a multiply-add is two.

    Args:
      function: anything that jax can trace.
      *arguments: arrays or their shapes.
    """
    return _of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr)


def _of_jaxpr(jaxpr) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation) -> int:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        left = equation.invars[0].aval.shape
        inner = math.prod(left[axis] for axis in contracted)
        return 2 * inner * math.prod(equation.outvars[0].aval.shape)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        outputs = kernel[parameters["dimension_numbers"].rhs_spec[0]]
        return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // outputs
    if name == "scan":
        return parameters["length"] * _of_jaxpr(parameters["jaxpr"].jaxpr)
    if name == "cond":
        return max(_of_jaxpr(branch.jaxpr) for branch in parameters["branches"])
    if name == "pallas_call":
        raise ValueError("a kernel's work is not in its trace; count the plain formula instead")
    return sum(_of_jaxpr(inner) for inner in _inner(parameters))


def _inner(parameters: dict[str, Any]):
    for value in parameters.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(item, "jaxpr"):
                yield item.jaxpr
            elif hasattr(item, "eqns"):
                yield item


@dataclasses.dataclass(frozen=True)
class AbstractRun:
    """What train.py would compile, as shapes with shardings.

    Attributes:
      config: the experiment.
      mesh: of devices that need not exist.
      train_step: what a step does.
      state: of the first step.
      weights: the frozen nets' and the teacher's.
      batch: one global batch.
    """

    config: Config
    mesh: Mesh
    train_step: TrainStep
    state: TrainState
    weights: dict[str, Any]
    batch: dict[str, jax.ShapeDtypeStruct]

    def lower(self):
        """Trace and lower the step; `.compile()` the result."""
        step: Any = jit_train_step(self.train_step, self.state, self.mesh)
        return step.lower(self.state, self.weights, self.batch)


def abstract_run(config: Config, mesh: Mesh) -> AbstractRun:
    """The step of a config on a mesh, as shapes.

    Raises:
      UserError: the config does not determine the frozen nets' sizes.
    """
    dtype = compute_dtype(config, platform_of(mesh))
    gather, attention = encoder_gather_on(config, mesh), attention_over(config, mesh)
    nets = _autoencoder(config), abstract_encoder(config)
    frozen = frozen_nets(config, *nets, dtype, gather, attention)
    teacher_parameterization = None
    if config.teacher is not None:
        teacher_parameterization = Parameterization(*_form(config))
    train_step = build_train_step(config, mesh, frozen, teacher_parameterization)
    weights: dict[str, Any] = {
        "autoencoder": frozen.autoencoder.shapes,
        "encoder": _stored(frozen.encoder.shapes, dtype) if frozen.encoder is not None else {},
    }
    if train_step.teacher is not None:
        weights["teacher"] = _stored(train_step.teacher.shapes, dtype)
    if adapters_of(train_step.network.shapes):
        weights["base"] = _stored(base_of(train_step.network.shapes), dtype)
    weights |= jax.eval_shape(lambda: perceptual_weights(config))
    shardings = weight_shardings(weights, mesh, shard_encoder=config.mesh.shard_encoder)
    rows, side = config.train.batch_size, config.data.crop_size
    sizes = {"hr": (rows, side, side, 3), "lq": (rows, side, side, 3), "index": (rows, 2)}
    batch = {
        name: jax.ShapeDtypeStruct(
            size, jnp.uint32 if name == "index" else jnp.uint8, sharding=batch_sharding(mesh)
        )
        for name, size in sizes.items()
    }
    # A batch carries each process's counts beside the rows; here for one data source.
    notes = NamedSharding(mesh, P(AXES))
    batch["notes"] = jax.ShapeDtypeStruct((mesh.size, notes_length(1)), jnp.int32, sharding=notes)
    return AbstractRun(
        config,
        mesh,
        train_step,
        abstract_state(train_step, mesh),
        _placed(weights, shardings),
        batch,
    )


def _form(config: Config) -> tuple:
    o = config.objective
    return o.endpoint, o.prediction, o.residual_scale, o.smallest_t


def _placed(shapes, shardings):
    return jax.tree.map(
        lambda s, sharding: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding),
        shapes,
        shardings,
    )


def _stored(shapes: dict[str, jax.ShapeDtypeStruct], dtype: jnp.dtype) -> dict[str, Any]:
    """Shapes of frozen weights in the dtypes of `sharding.cast_frozen`."""
    return {
        name: jax.ShapeDtypeStruct(s.shape, dtype if is_matmul_param(name) else s.dtype)
        for name, s in shapes.items()
    }


def _autoencoder(config: Config) -> Any:
    own = config.autoencoder
    if own.kind == "space_to_depth":
        return SpaceToDepth(SpaceToDepthSettings(own.downscale, own.scaling_factor))
    if own.kind == "qwen":
        return nnx.eval_shape(lambda: QwenAutoencoder(QwenSettings(), rngs=nnx.Rngs(0)))
    settings = SDSettings.sd21_light() if own.decoder else SDSettings.sd21()
    return nnx.eval_shape(lambda: SDAutoencoder(settings, rngs=nnx.Rngs(0)))


def abstract_encoder(config: Config) -> DINOv2 | VGG16 | None:
    """The config's visual encoder as shapes; None if it has none.

    Raises:
      UserError: only the encoder's file tells its sizes.
    """
    own = config.encoder
    if own.kind == "none":
        return None
    if own.kind == "vgg16":
        return nnx.eval_shape(lambda: VGG16(VGG16Settings(own.block + 1), rngs=nnx.Rngs(0)))
    if own.kind not in _ENCODERS:
        raise UserError(
            f"encoder.kind={own.kind} has sizes that only its file tells; plan with one of "
            f"{', '.join(_ENCODERS)}"
        )
    settings = _ENCODERS[own.kind]()
    if own.block < settings.depth - 1:
        settings = dataclasses.replace(settings, kept_blocks=own.block + 1)
    return nnx.eval_shape(lambda: DINOv2(settings, rngs=nnx.Rngs(0)))


def analytic_flops(config: Config, device: jax.Device | None = None) -> float:
    """Operations per pair of a step's products, without recomputation: the basis of MFU.

    The trainable network's forward products count three times, those of the frozen nets and the
    teacher once, as in the traced step without rematerialization.

    Args:
      config: the experiment.
      device: any; nothing runs on it, and the result is the same for all. None is JAX's own.

    Raises:
      UserError: the config does not determine the frozen nets' sizes.
    """
    plain = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, remat="none", dtype="float32", swiglu_multiple=1),
        mesh=dataclasses.replace(config.mesh, data=1, fsdp=1, tensor=1, slices=0),
        train=dataclasses.replace(config.train, batch_size=1, microbatches=1, frozen_chunks=1),
    )
    mesh = make_mesh(1, 1, 1, [device or jax.local_devices()[0]])
    run = abstract_run(plain, mesh)
    # Other attention implementations compute the scores twice.
    network = denoiser_blueprint(plain, mesh, plain_attention)
    gradient = dataclasses.replace(run.train_step, network=network).gradient
    return float(
        product_flops(gradient, run.state.parameters, run.weights, run.batch, run.state.step)
    )
