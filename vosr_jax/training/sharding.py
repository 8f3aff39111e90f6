"""Mesh and sharding rules by parameter path; the networks themselves contain none.

Axes: `data` (replicas), `fsdp` (parameters and batch) and `tensor` (heads and hidden widths).
A batch's rows are sharded over (data, fsdp).
"""

import functools
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding
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


def process_rows(mesh: Mesh, batch_size: int, process_index: int) -> np.ndarray:
    """Rows of the global batch that a process loads, according to the sharding.

    Args:
      mesh: from `make_mesh`.
      batch_size: rows of a global batch; a multiple of the mesh's data * fsdp.
      process_index: of the process.

    Returns:
      [rows] int64, ascending, each row of the process's devices once: the order that `put_batch`
      expects. If tensor parallelism crosses hosts, a row on several processes belongs to each of
      them. Empty for a process without devices.

    Raises:
      UserError: the rows do not divide evenly over the devices.
    """
    rows = [np.arange(*part, dtype=np.int64) for part in _parts(mesh, batch_size, process_index)]
    return np.concatenate(rows) if rows else np.zeros(0, np.int64)


@functools.lru_cache(maxsize=16)
def _parts(mesh: Mesh, batch_size: int, process_index: int) -> list[tuple[int, int]]:
    """(first row, row after the last) of each distinct shard on a process's devices, ascending."""
    devices = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    if batch_size % devices:
        raise UserError(
            f"a batch of {batch_size} rows does not lie evenly over mesh.data * mesh.fsdp = "
            f"{devices}; set train.batch_size to a multiple of it"
        )
    places: Mapping[Any, Any] = batch_sharding(mesh).devices_indices_map((batch_size,))
    return sorted(
        {
            rows.indices(batch_size)[:2]
            for device, (rows,) in places.items()
            if device.process_index == process_index
        }
    )


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Put this process's rows into global arrays that are sharded over the batch axes.

    Args:
      batch: arrays whose first axis has the rows of `process_rows`, in that order.
      mesh: from `make_mesh`.
    """
    sharding = batch_sharding(mesh)
    return {name: _placed(rows, sharding) for name, rows in batch.items()}


def _placed(rows: np.ndarray, sharding: NamedSharding) -> jax.Array:
    mesh, own = sharding.mesh, jax.process_index()
    devices = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    # All devices hold the same number of rows, so this process's rows give the batch size.
    size = len(rows) // len(_parts(mesh, devices, own)) * devices
    starts = [start for start, _ in _parts(mesh, size, own)]

    def part(index: Any) -> np.ndarray:
        start, stop, _ = index[0].indices(size)
        at = starts.index(start) * (stop - start)
        return rows[at : at + stop - start]

    return jax.make_array_from_callback((size, *rows.shape[1:]), sharding, part)


def put_notes(notes: np.ndarray, mesh: Mesh) -> jax.Array:
    """Put this process's counts into a global array beside those of all other processes.

    Args:
      notes: [K] int32.
      mesh: from `make_mesh`.

    Returns:
      [devices, K], one row per device. A process's first device holds its notes, its other
      devices zeros; the sum over rows is the sum over processes.
    """
    own = jax.process_index()
    first = next(i for i, device in enumerate(mesh.devices.flat) if device.process_index == own)

    def row(index: Any) -> np.ndarray:
        number = index[0].indices(mesh.size)[0]
        return notes[None] if number == first else np.zeros_like(notes[None])

    shape = (mesh.size, len(notes))
    return jax.make_array_from_callback(shape, NamedSharding(mesh, P(AXES)), row)


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
    lines.append(f"{count:,} parameters, {total:,} bytes on a device")
    return "\n".join(lines)
