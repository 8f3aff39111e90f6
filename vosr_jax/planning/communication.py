"""Collectives of a compiled program, read from its text: what they move, and the time they add."""

import dataclasses
import math
import re
from collections.abc import Iterator

import numpy as np
from jax.sharding import Mesh

from vosr_jax.planning.hlo import Instruction, Program
from vosr_jax.planning.topology import Topology
from vosr_jax.training.abstract import AbstractRun
from vosr_jax.training.sharding import is_matmul_param, parameter_spec, sharded_over

_ASYNC_START = 'custom_call_target="AsyncCollectiveStart"'
KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of a program.

    Attributes:
      kind: one of KINDS.
      times: how often it runs in a step.
      bytes: that one device sends, and receives, each time, over a ring.
      members: one group of the devices that take part, by their place in the mesh.
      dtypes: of the data sent.
      hidden: whether it runs beside other work (the compiler made it asynchronous).
      across: whether its groups span slices.
    """

    kind: str
    times: int
    bytes: float
    members: tuple[int, ...]
    dtypes: tuple[str, ...]
    hidden: bool
    across: bool

    @property
    def total(self) -> float:
        """Bytes per step."""
        return self.times * self.bytes


def collectives(program: Program, devices_a_slice: int = 0) -> list[Collective]:
    """All collectives, each once, even if the compiler has split it into pieces.

    Args:
      program: compiled.
      devices_a_slice: devices per slice; 0 if there is one slice.
    """
    found = []
    for times, _, instruction in program.executed():
        scatter = _is_scatter(instruction)
        for inner in _started(program, instruction):
            hidden = inner is not instruction or inner.opcode.endswith("-start")
            kind = "reduce-scatter" if scatter else _kind(inner)
            hidden &= not scatter
            found.append(_collective(kind, times, inner, hidden, devices_a_slice))
    return found


def exposed_seconds(sent: list[Collective], topology: Topology, mesh: Mesh, busy: float) -> float:
    """Seconds that collectives add to a step: all blocking ones, and the hidden ones' excess.

    Args:
      sent: the step's collectives.
      topology: of its devices.
      mesh: by whose order the collectives number the devices.
      busy: seconds of other work, behind which asynchronous ones hide.
    """
    devices = mesh.devices.reshape(-1)

    def seconds(own: list[Collective]) -> float:
        total = 0.0
        for one in own:
            places = [devices[member].coords for member in one.members]
            total += one.total / (
                topology.chip.slow_network if one.across else topology.bandwidth(places)
            )
        return total

    hidden = seconds([c for c in sent if c.hidden])
    return seconds([c for c in sent if not c.hidden]) + max(hidden - busy, 0.0)


def fsdp_ideal(run: AbstractRun) -> float:
    """Bytes that one device must move for one forward and backward pass of the network.

    Every sharded parameter is gathered once in its products' dtype, and once more if the backward
    pass recomputes the block. Every gradient is scattered once in float32. If the batch is sharded
    over `data` too, each device's shard of the gradients is summed over it. All of it happens for
    every microbatch, but the sum over `data` only once if the config says so.
    """
    mesh, config = run.mesh, run.config
    parts = config.train.microbatches
    sums = parts if run.train_step.replicas is None else 1
    gather = run.train_step.gather
    passes = 2 if config.model.remat != "none" else 1
    total = 0.0
    base = run.weights.get("base", {})
    for name, leaf in (run.state.parameters | base).items():
        spec = parameter_spec(name, leaf.shape, mesh)
        own = float(np.prod(leaf.sharding.shard_shape(leaf.shape)))
        fsdp = mesh.shape["fsdp"] if sharded_over(spec, "fsdp") else 1
        width = gather.dtype.itemsize if gather is not None and is_matmul_param(name) else 4
        again = passes if name.startswith("blocks.") else 1
        if name in base:  # frozen: no gradient travels
            total += parts * own * (fsdp - 1) * again * width
            continue
        total += parts * own * (fsdp - 1) * (again * width + 4)
        data = mesh.shape["data"] * (mesh.shape["fsdp"] if fsdp == 1 else 1)
        total += sums * 2 * own * 4 * (data - 1) / data
    return total


def _started(program: Program, instruction: Instruction) -> Iterator[Instruction]:
    """Yield the instruction if it is a collective, or the collectives that its fusion starts."""
    if _kind(instruction) in KINDS:
        yield instruction
    elif instruction.opcode == "fusion":
        for called in instruction.called:
            inside = program.computations[called].values()
            # An asynchronous collective continues in other fusions, which list it again.
            begins = any(_ASYNC_START in inner.attributes for inner in inside)
            if begins or _is_scatter(instruction):
                yield from (inner for inner in inside if _kind(inner) in KINDS)


def _kind(instruction: Instruction) -> str:
    return instruction.opcode.removesuffix("-start")


def _is_scatter(instruction: Instruction) -> bool:
    """Whether it is a TPU program's reduce-scatter: an all-reduce fused with a slice."""
    return any("all-reduce-scatter" in called for called in instruction.called)


def _collective(
    kind: str, times: int, instruction: Instruction, hidden: bool, devices_a_slice: int
) -> Collective:
    members = _members(instruction.attributes)
    group = len(members)
    across = devices_a_slice > 0 and len({d // devices_a_slice for d in members}) > 1
    shapes = instruction.shapes
    if instruction.opcode.endswith("-start") and kind != "all-reduce" and len(shapes) > 1:
        shapes = shapes[len(shapes) // 2 :] if kind == "all-gather" else shapes[:1]
    whole = sum(shape.bytes for shape in shapes)
    share = (group - 1) / group
    moved = {
        "all-gather": whole * share,
        # The input counts. A fused reduce-scatter lists its inner all-reduce, of the input's size.
        "reduce-scatter": whole * share * (group if instruction.opcode == kind else 1),
        "all-reduce": 2 * whole * share,
        "all-to-all": whole * share,
        "collective-permute": float(whole),
    }[kind]
    dtypes = tuple(sorted({shape.dtype for shape in shapes}))
    return Collective(kind, times, moved, members, dtypes, hidden, across)


def _members(attributes: str) -> tuple[int, ...]:
    """The first group, in any of XLA's three notations.

    Raises:
      ValueError: the groups are in another notation.
    """
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", attributes)
    if listed:
        return tuple(int(device) for device in listed[1].split(","))
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes)
    if iota:
        return tuple(_first_iota_group(int(iota[2]), iota[3], iota[4]))
    mesh = re.search(
        r"replica_groups=mesh\[([^\]]*)\]"
        r"(?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}",
        attributes,
    )
    if mesh:
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh[1])}
        order = _iota(mesh[2] or str(math.prod(sizes.values())), mesh[3])
        return tuple(_first_mesh_group(sizes, re.findall(r"'([^']+)'", mesh[4]), order))
    if groups := re.search(r"replica_groups=.{0,80}", attributes):
        raise ValueError(f"groups of devices that cannot be read: {groups[0]}")
    pairs = re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", attributes)
    return (int(pairs[1]), int(pairs[2])) if pairs else (0, 1)


def _first_iota_group(group: int, sizes: str, transposed: str | None) -> list[int]:
    return _iota(sizes, transposed).reshape(-1, group)[0].tolist()


def _iota(sizes: str, transposed: str | None) -> np.ndarray:
    """Device numbers in the order of sizes "2,4" and an optional transposition "1,0"."""
    shape = [int(size) for size in sizes.split(",")]
    order = np.arange(math.prod(shape)).reshape(shape)
    if transposed:
        order = order.transpose([int(axis) for axis in transposed.split(",")])
    return order


def _first_mesh_group(sizes: dict[str, int], used: list[str], order: np.ndarray) -> list[int]:
    index = tuple(slice(None) if name in used else 0 for name in sizes)
    return order.reshape(tuple(sizes.values()))[index].reshape(-1).tolist()
