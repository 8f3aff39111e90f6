"""Mesh and sharding: a table of parameter-path patterns, and nothing in the networks.

Axes: `data` (replicas), `fsdp` (parameters and batch) and `tensor` (heads and hidden widths).
Rows of a batch lie over (data, fsdp).
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vosr_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")

# (pattern of the dotted path, axes), first match wins; blocks carry a leading depth axis. Only a
# kernel's first axis lies over fsdp: a part of the last one may be less than the 128 lanes of a
# TPU, and then a gradient is not scattered but summed whole.
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
    (r"(patch_embed|token_mlp\.\w+|t_embedding\.\w+|r_embedding\.\w+)\.kernel", P("fsdp")),
    (r"(final\.)?modulation\.kernel", P("fsdp", None, None)),
    (r"final\.linear\.kernel", P("fsdp", None)),
    (r".*", P()),
)


def make_mesh(
    data: int, fsdp: int, tensor: int, devices: list | None = None, *, slices: int = 0
) -> Mesh:
    """A mesh over all devices; one axis may be -1, all that is left.

    Args:
      data, fsdp, tensor: sizes of the axes.
      devices: all of them, unless given.
      slices: groups of devices that are joined by a slow network; `data` is laid across them, so
        that fsdp and tensor stay inside one. 0 asks the devices themselves.

    Raises:
      UserError: the axes do not multiply to the number of devices, or the slices do not divide.
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
    """The devices in an order that suits their network."""
    from jax.experimental import mesh_utils

    return mesh_utils.create_device_mesh(
        tuple(sizes), devices, contiguous_submeshes=False, allow_split_physical_axes=True
    )


def slices_of(devices: list, wanted: int) -> list[list]:
    """The devices of each slice, as they say themselves or in equal parts in their order."""
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
    """The first rule that matches, without the axes that do not divide their dimension."""
    spec = next(spec for pattern, spec in rules if re.fullmatch(pattern, name))
    fitting = [_fitting(axes, shape[i], mesh) for i, axes in enumerate(spec)]
    return P(*fitting)


def axes_of(entry) -> tuple[str, ...]:
    """The mesh axes of one entry of a spec."""
    return (entry,) if isinstance(entry, str) else tuple(entry or ())


def lies_over(spec: P, axis: str) -> bool:
    """Whether any dimension is divided by this axis."""
    return any(axis in axes_of(entry) for entry in spec)


def _fitting(entry, size: int, mesh: Mesh):
    """The leading axes of an entry that divide a dimension, as an entry."""
    kept: list[str] = []
    for axis in axes_of(entry):
        if size % math.prod(mesh.shape[name] for name in (*kept, axis)) == 0:
            kept.append(axis)
    return None if not kept else kept[0] if len(kept) == 1 else tuple(kept)


def state_shardings(abstract_state, mesh: Mesh):
    """Shardings of a train state: optimizer slots and EMA lie where their parameters lie.

    Args:
      abstract_state: pytree of shapes whose leaves' last path key is a parameter's name for
        everything parameter-like; the rest is replicated.
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


# The same for the visual encoder, where its weights are to lie over fsdp.
ENCODER_RULES: Rules = (
    (r"blocks\.qkv\.kernel", P(None, "fsdp", None, None, None)),
    (r"blocks\.(proj|ffn_in|ffn_out)\.kernel", P(None, "fsdp")),
    (r".*", P()),
)


def weight_shardings(
    weights: Mapping[str, Any], mesh: Mesh, *, shard_encoder: bool = False
) -> dict[str, Any]:
    """Shardings of the frozen weights: the teacher's as the student's, the rest replicated.

    Args:
      weights: {net: {dotted path: array}}.
      mesh: from `make_mesh`.
      shard_encoder: whether the visual encoder's lie over fsdp too.
    """
    whole = NamedSharding(mesh, P())
    shardings = {net: jax.tree.map(lambda _: whole, arrays) for net, arrays in weights.items()}
    rules = {"teacher": PARAMETER_RULES} | ({"encoder": ENCODER_RULES} if shard_encoder else {})
    for net in rules.keys() & weights.keys():
        shardings[net] = {
            name: NamedSharding(mesh, parameter_spec(name, value.shape, mesh, rules[net]))
            for name, value in weights[net].items()
        }
    return shardings


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over the batch axes."""
    return NamedSharding(mesh, P(BATCH_AXES))


def batch_shard(mesh: Mesh) -> tuple[int, int]:
    """(shard, shards) of the batch that this process loads, from the mesh's batch axes."""
    own = jax.process_index()
    replica_of = mesh.devices.reshape(-1, mesh.shape["tensor"])
    rows = [i for i, group in enumerate(replica_of) if any(d.process_index == own for d in group)]
    shards = len(replica_of) // len(rows)
    return rows[0] // len(rows), shards


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's rows as global arrays, sharded over the batch axes."""
    sharding = batch_sharding(mesh)
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}


def describe(parameters: Mapping[str, jax.ShapeDtypeStruct], mesh: Mesh) -> str:
    """A table of every parameter: name, shape, sharding and bytes on one device."""
    lines, total = [], 0
    width = max(map(len, parameters))
    for name, value in parameters.items():
        spec = parameter_spec(name, value.shape, mesh)
        shape = NamedSharding(mesh, spec).shard_shape(value.shape)
        size = int(np.prod(shape)) * value.dtype.itemsize
        total += size
        lines.append(f"{name:{width}} {str(value.shape):24} {str(spec):48} {size:>12,}")
    count = sum(value.size for value in parameters.values())
    lines.append(f"{count:,} parameters, {total:,} bytes on a device; mesh {dict(mesh.shape)}")
    return "\n".join(lines)
