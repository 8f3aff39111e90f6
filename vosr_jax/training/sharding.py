"""Mesh and sharding rules by parameter path, and the gather of sharded parameters for compute.

The networks themselves contain none of it. Axes: `data` (replicas), `fsdp` (parameters and batch)
and `tensor` (heads and hidden widths). A batch's rows are sharded over (data, fsdp).
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vosr_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")
# (pattern of the dotted path, axes); the first match wins. Blocks have a leading depth axis. Only
# a kernel's first axis is sharded over fsdp: a shard of the last axis may be smaller than a TPU's
# 128 lanes, and the whole gradient is then summed instead of scattered.
Rules = tuple[tuple[str, P], ...]
PARAMETER_RULES: Rules = (
    (r"blocks\.attn\.qkv\.kernel", P(None, "fsdp", None, "tensor", None)),
    (r"blocks\.attn\.qkv\.bias", P(None, None, "tensor", None)),
    (r"blocks\.cross_attn\.(query|key|value)\.kernel", P(None, "fsdp", "tensor", None)),
    (r"blocks\.cross_attn\.(query|key|value)\.bias", P(None, "tensor", None)),
    (r"blocks\.(cross_)?attn\.proj\.kernel", P(None, ("tensor", "fsdp"))),
    (r"blocks\.mlp\.gate_up\.kernel", P(None, "fsdp", None, "tensor")),
    (r"blocks\.mlp\.gate_up\.bias", P(None, None, "tensor")),
    (r"blocks\.mlp\.hidden\.kernel", P(None, "fsdp", "tensor")),
    (r"blocks\.mlp\.out\.kernel", P(None, ("tensor", "fsdp"))),
    # An adapter's thin matrices follow their kernel over tensor and are replicated over fsdp.
    # Gathering them would cost two more collectives per matrix, and their rank is too small to
    # fill the lanes for a scatter.
    (r"blocks\.(attn\.proj|mlp\.out)\.lora\.down", P(None, "tensor")),
    (r"blocks\.attn\.qkv\.lora\.up", P(None, None, None, "tensor", None)),
    (r"blocks\.cross_attn\.(query|value)\.lora\.up", P(None, None, "tensor", None)),
    (r"blocks\.mlp\.gate_up\.lora\.up", P(None, None, None, "tensor")),
    (r"blocks\.mlp\.hidden\.lora\.up", P(None, None, "tensor")),
    (r"(patch_embed|token_mlp\.\w+|t_embedding\.\w+|r_embedding\.\w+)\.kernel", P("fsdp")),
    (r"(final\.)?modulation\.kernel", P("fsdp", None, None)),
    (r"final\.linear\.kernel", P("fsdp", None)),
    (r".*", P()),
)


def make_mesh(
    data: int, fsdp: int, tensor: int, devices: list | None = None, *, slices: int = 0
) -> Mesh:
    """Make a mesh over all devices; one axis may be -1 for all remaining devices.

    Args:
      data, fsdp, tensor: sizes of the axes.
      devices: of the mesh; None takes all.
      slices: number of device groups that a slow network joins. `data` spans them; fsdp and
        tensor stay inside one. 0 takes the slices that the devices report.

    Raises:
      UserError: the product of the axes is not the number of devices, or the slices do not divide
        the devices or `data`.
    """
    devices = jax.devices() if devices is None else devices
    groups = slices_of(devices, slices)
    sizes = [data, fsdp, tensor]
    if sizes.count(-1) > 1:
        raise UserError(f"mesh {tuple(sizes)}: only one of data, fsdp and tensor may be -1")
    known = int(np.prod([size for size in sizes if size != -1]))
    sizes = [len(devices) // known if size == -1 else size for size in sizes]
    if int(np.prod(sizes)) != len(devices):
        raise UserError(
            f"mesh.data * mesh.fsdp * mesh.tensor must be the {len(devices)} devices, "
            f"not {' * '.join(map(str, (data, fsdp, tensor)))}"
        )
    auto = (jax.sharding.AxisType.Auto,) * 3
    if len(groups) == 1:
        return Mesh(_laid_out(sizes, devices), AXES, axis_types=auto)
    if sizes[0] % len(groups):
        raise UserError(
            f"mesh.data is {sizes[0]}; over {len(groups)} slices it must be a multiple of them, "
            "so that fsdp and tensor stay inside a slice"
        )
    inside = [sizes[0] // len(groups), *sizes[1:]]
    parts = [_laid_out(inside, group) for group in groups]
    return Mesh(np.concatenate(parts), AXES, axis_types=auto)


def _laid_out(sizes: list[int], devices: list) -> np.ndarray:
    """The devices in an order that suits their interconnect."""
    return mesh_utils.create_device_mesh(
        tuple(sizes), devices, contiguous_submeshes=False, allow_split_physical_axes=True
    )


def slices_of(devices: list, wanted: int) -> list[list]:
    """The devices of each slice: `wanted` equal parts in order, or as they report if it is 0."""
    if wanted:
        if len(devices) % wanted:
            raise UserError(f"mesh.slices={wanted} does not divide {len(devices)} devices")
        size = len(devices) // wanted
        return [devices[i : i + size] for i in range(0, len(devices), size)]
    groups: dict[int, list] = {}
    for device in devices:
        groups.setdefault(getattr(device, "slice_index", None) or 0, []).append(device)
    return [groups[index] for index in sorted(groups)]


def parameter_spec(
    name: str, shape: tuple[int, ...], mesh: Mesh, rules: Rules = PARAMETER_RULES
) -> P:
    """The spec of the first matching rule, without axes that do not divide their dimension."""
    spec = next(spec for pattern, spec in rules if re.fullmatch(pattern, name))
    fitting = [_fitting(axes, shape[i], mesh) for i, axes in enumerate(spec)]
    return P(*fitting)


def axes_of(entry) -> tuple[str, ...]:
    """The mesh axes of one entry of a spec."""
    return (entry,) if isinstance(entry, str) else tuple(entry or ())


def sharded_over(spec: P, axis: str) -> bool:
    """Whether any dimension is sharded over this axis."""
    return any(axis in axes_of(entry) for entry in spec)


def _fitting(entry, size: int, mesh: Mesh):
    """The axes of an entry that together divide a dimension, as an entry."""
    kept: list[str] = []
    for axis in axes_of(entry):
        if size % math.prod(mesh.shape[name] for name in (*kept, axis)) == 0:
            kept.append(axis)
    return None if not kept else kept[0] if len(kept) == 1 else tuple(kept)


def state_shardings(abstract_state, mesh: Mesh):
    """Shardings of a train state: optimizer slots and EMA are sharded like their parameters.

    Args:
      abstract_state: pytree of shapes. A leaf is sharded like a parameter if its last path key
        and its shape are that parameter's; the rest is replicated.
      mesh: from `make_mesh`.

    Returns:
      The same pytree of NamedShardings.
    """
    shapes = abstract_state.parameters

    def sharding(path, leaf) -> NamedSharding:
        name = str(getattr(path[-1], "key", "")) if path else ""
        if name in shapes and shapes[name].shape == leaf.shape:
            return NamedSharding(mesh, parameter_spec(name, leaf.shape, mesh))
        return NamedSharding(mesh, P())

    return jax.tree_util.tree_map_with_path(sharding, abstract_state)


# Rules for the visual encoder, if its weights are sharded over fsdp.
ENCODER_RULES: Rules = (
    (r"blocks\.qkv\.kernel", P(None, "fsdp", None, None, None)),
    (r"blocks\.(proj|ffn_in|ffn_out)\.kernel", P(None, "fsdp")),
    (r".*", P()),
)


def weight_shardings(
    weights: Mapping[str, Any], mesh: Mesh, *, shard_encoder: bool = False
) -> dict[str, Any]:
    """Shardings of the frozen weights: teacher and base like the student, the rest replicated.

    Args:
      weights: {net: {dotted path: array}}.
      mesh: from `make_mesh`.
      shard_encoder: whether the visual encoder's weights are sharded over fsdp too.
    """
    whole = NamedSharding(mesh, P())
    shardings = {net: jax.tree.map(lambda _: whole, arrays) for net, arrays in weights.items()}
    networks = {"teacher": PARAMETER_RULES, "base": PARAMETER_RULES}
    rules = networks | ({"encoder": ENCODER_RULES} if shard_encoder else {})
    for net in rules.keys() & weights.keys():
        shardings[net] = {
            name: NamedSharding(mesh, parameter_spec(name, value.shape, mesh, rules[net]))
            for name, value in weights[net].items()
        }
    return shardings


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of a batch: rows over the batch axes."""
    return NamedSharding(mesh, P(BATCH_AXES))


# Parameters that the networks cast to their matrix products' dtype anyway, so casting them early
# changes nothing: all kernels and biases except those of times, norms and the encoder's patches.
_IN_PRODUCTS = re.compile(
    r"(patch_embed|token_mlp\.\w+|final\.linear|blocks\.(attn|cross_attn|mlp)\.\w+"
    r"|detailer\.(embed|out|out\.(spread|refine|out)|refine\.(first|second)"
    r"|(stem_)?blocks\.\d+\.(first|second))"
    r"|blocks\.(qkv|proj|ffn_in|ffn_out))\.(kernel|bias)"  # the visual encoder's
    r"|blocks\.(attn|cross_attn|mlp)\.\w+\.lora\.(down|up)"
)
_BLOCKS = "blocks."


def is_matmul_param(name: str) -> bool:
    """Whether a parameter is read only in the matrix products' dtype."""
    return _IN_PRODUCTS.fullmatch(name) is not None


def surrounding_mesh(mesh: Mesh) -> Mesh | AbstractMesh:
    """The mesh as the function that is being traced sees it; a `shard_map` takes axes from it."""
    around = jax.sharding.get_abstract_mesh()
    return mesh if around.empty else around


@dataclasses.dataclass(frozen=True)
class Gather:
    """Gather sharded parameters for compute, and scatter their gradients.

    A block's slice is cast to the matrix products' dtype, gathered over `fsdp` where the block
    reads it, and then dropped; no program holds a gathered stack. Its gradient is scattered in
    float32, or on request in the products' dtype.

    Attributes:
      mesh: of the parameters.
      dtype: of the matrix products; their parameters are gathered in it.
      rules: that shard the parameters.
      short_gradients: gradients of parameters gathered in `dtype` return in it. Each device sums
        over its rows in float32 and rounds; these are then summed over the devices.
    """

    mesh: Mesh
    dtype: jnp.dtype
    rules: Rules = PARAMETER_RULES
    short_gradients: bool = False

    def __call__(self, name: str, value: Array) -> Array:
        """Gather one block's slice of a stacked parameter, without the depth axis."""
        return self._gathered(
            name, value, P(*parameter_spec(name, (1, *value.shape), self.mesh, self.rules)[1:])
        )

    def others(self, parameters: Mapping[str, Array]) -> dict[str, Array]:
        """All parameters; those outside the blocks are gathered."""
        gathered = dict(parameters)
        for name, value in parameters.items():
            if not name.startswith(_BLOCKS):
                spec = parameter_spec(name, value.shape, self.mesh, self.rules)
                gathered[name] = self._gathered(name, value, spec)
        return gathered

    def _gathered(self, name: str, value: Array, spec: P) -> Array:
        if not sharded_over(spec, "fsdp"):
            return value
        mesh = surrounding_mesh(self.mesh)
        parts = NamedSharding(mesh, spec)
        without = (tuple(axis for axis in axes_of(entry) if axis != "fsdp") for entry in spec)
        whole = NamedSharding(mesh, P(*without))
        dtype = self.dtype if is_matmul_param(name) else value.dtype
        return _gather(value, jnp.dtype(dtype), self.short_gradients, parts, whole)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _gather(
    value: Array, dtype: jnp.dtype, short: bool, parts: NamedSharding, whole: NamedSharding
) -> Array:
    cast = jax.lax.with_sharding_constraint(value.astype(dtype), parts)
    gathered = jax.lax.with_sharding_constraint(cast, whole)
    # Cast back to its own dtype, which costs nothing, so that the gradient arrives in that dtype.
    return gathered if short else gathered.astype(value.dtype)


def _forward(value, dtype, short, parts, whole):
    # An empty array carries the parameter's dtype to the backward pass.
    return _gather(value, dtype, short, parts, whole), jnp.zeros(0, value.dtype)


def _backward(dtype, short, parts, whole, like, cotangent):
    return (jax.lax.with_sharding_constraint(cotangent, parts).astype(like.dtype),)


_gather.defvjp(_forward, _backward)


def cast_frozen(parameters: Mapping[str, Any], dtype: jnp.dtype) -> dict[str, Any]:
    """Cast frozen parameters for the devices: products' operands to `dtype`, others stay float32.

    The network's output is the same, bit for bit.
    """
    return {k: v.astype(dtype) if is_matmul_param(k) else v for k, v in parameters.items()}
