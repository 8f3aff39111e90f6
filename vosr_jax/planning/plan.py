"""One plan: the compiled step of a config on a topology, and what follows from it."""

import dataclasses
import math
import time
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vosr_jax.compilation_cache import no_compilation_cache
from vosr_jax.config import Config
from vosr_jax.errors import UserError
from vosr_jax.planning.communication import KINDS, Collective, collectives
from vosr_jax.planning.data_cores import cores_a_pair
from vosr_jax.planning.hlo import Shape, parse
from vosr_jax.planning.roofline import Work, least_seconds, work_of
from vosr_jax.planning.starting import shard_bytes, start_memory
from vosr_jax.planning.topology import Topology, devices_of, other_compiler
from vosr_jax.training.abstract import AbstractRun, abstract_run, analytic_flops
from vosr_jax.training.build import mesh_of
from vosr_jax.training.fsdp import is_matmul_param
from vosr_jax.training.sharding import parameter_spec, sharded_over

# Matrix products of an attention kernel's forward and backward pass.
_FORWARD_PRODUCTS, _BACKWARD_PRODUCTS = 2, 5


@dataclasses.dataclass(frozen=True)
class SlicePlan:
    """Predictions for a step before it runs. Bytes and seconds are per device.

    Compiled: `fits`, `memory`, `collectives`, `compiled_flops`, `compile_seconds`. Counted in the
    traced program: `analytic_flops`. Modelled from these: all else.

    Attributes:
      topology, mesh: where the step runs.
      batch_size, rows: pairs per update, and per device at a time.
      trained: (parameters that are trained, parameters of the network).
      fits: whether the program fits the device's memory.
      memory: bytes by kind; "total" is what the program holds at once.
      collectives: {kind: (number in a step, bytes)}.
      gathered_bytes: of the FSDP ideal, for one forward and backward pass of the network.
      analytic_flops: of a step, without recomputation.
      compiled_flops: of a step as compiled, in passes of a bfloat16 unit.
      step_seconds: lower bound.
      exposed_seconds: part of it in collectives that nothing hides.
      bound: share of the step that memory, arithmetic and the network limit.
      mfu: upper bound: analytic operations over the chips' peak in that time.
      pairs_per_second: of all devices, upper bound.
      host_cores: virtual CPUs that the data of one host needs, and those that it has.
      days, chip_hours: until the config's last step.
      compile_seconds: on this machine.
      start: bytes of the first start, see `start_memory`; {} unless requested.
      why_not: the compiler's reason if the program does not fit.
      slowest: lines about the slowest operations, if requested.
    """

    topology: str
    mesh: dict[str, int]
    batch_size: int
    rows: int
    remat: str
    fits: bool
    trained: tuple[int, int] = (0, 0)
    memory: dict[str, float] = dataclasses.field(default_factory=dict)
    collectives: dict[str, tuple[int, float]] = dataclasses.field(default_factory=dict)
    gathered_bytes: float = 0.0
    analytic_flops: float = 0.0
    compiled_flops: float = 0.0
    step_seconds: float = 0.0
    exposed_seconds: float = 0.0
    bound: dict[str, float] = dataclasses.field(default_factory=dict)
    mfu: float = 0.0
    pairs_per_second: float = 0.0
    host_cores: tuple[float, float] = (0.0, 0.0)
    days: float = 0.0
    chip_hours: float = 0.0
    compile_seconds: float = 0.0
    start: dict[str, float] = dataclasses.field(default_factory=dict)
    why_not: str = ""
    slowest: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)


def make_plan(
    config: Config, topology: Topology, *, slowest: int = 0, start: bool = False
) -> SlicePlan:
    """Compile the step that train.py would run on a topology, and read the program.

    Args:
      config: the experiment.
      topology: of the devices.
      slowest: number of slowest operations to list.
      start: also compile the program that makes the state, and compute what a start needs.

    Raises:
      UserError: the compiler is missing or fails, or mesh and batch do not fit the topology.
    """
    slices = config.mesh.slices or topology.slices
    mesh = mesh_of(config, devices_of(topology), slices)
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    rows, left = divmod(config.train.batch_size, shards * config.train.microbatches)
    if left or not rows:
        raise UserError(
            f"train.batch_size={config.train.batch_size} in {config.train.microbatches} parts does "
            f"not lie evenly over mesh.data * mesh.fsdp = {shards}; "
            f"set it to a multiple of {shards * config.train.microbatches}"
        )
    run = abstract_run(config, mesh)
    known = SlicePlan(
        topology.name,
        dict(mesh.shape),
        config.train.batch_size,
        rows,
        config.model.remat,
        fits=False,
        trained=_trained(run),
        analytic_flops=analytic_flops(config) * config.train.batch_size,
        gathered_bytes=fsdp_ideal(run),
    )
    began = time.monotonic()
    try:
        with no_compilation_cache():
            compiled = run.lower().compile()
        seconds = time.monotonic() - began
        program = parse(compiled.as_text())
    except jax.errors.JaxRuntimeError as error:
        if "memory" not in str(error).lower():
            advice = other_compiler() or "try another model.remat, train.batch_size or mesh"
            raise UserError(
                f"the TPU compiler fails on this step for {topology.name} "
                f"({str(error).splitlines()[0][:200]}); {advice}"
            ) from error
        reason = next(line for line in str(error).splitlines() if "memory" in line.lower())
        return dataclasses.replace(
            known, why_not=reason.strip(), compile_seconds=time.monotonic() - began
        )
    sent = collectives(program, topology.devices // slices if slices > 1 else 0)
    work = work_of(program, kernel_flops)
    plan = _reckoned(known, config, topology, run, compiled, sent, work, seconds)
    needed = start_memory(run) if start else {}
    return dataclasses.replace(plan, slowest=tuple(_lines(work, topology, slowest)), start=needed)


def _trained(run: AbstractRun) -> tuple[int, int]:
    counts = [math.prod(leaf.shape) for leaf in run.state.parameters.values()]
    return sum(counts), run.train_step.network.count()


def _reckoned(known: SlicePlan, config, topology, run, compiled, sent, work, seconds) -> SlicePlan:
    chip = topology.chip
    memory = memory_by_kind(run, compiled.memory_analysis())
    busy = least_seconds(work, chip)
    exposed = exposed_seconds(sent, topology, run.mesh, busy)
    step = busy + exposed
    waiting = sum(one.seconds(chip) for one in work if not one.ahead and one.bound_by_memory(chip))
    pairs = config.train.batch_size / step
    cores = cores_a_pair(config.data.crop_size) * pairs / topology.devices * chip.host_devices
    days = step * config.train.total_steps / 86_400
    return dataclasses.replace(
        known,
        fits=memory["total"] <= chip.memory,
        memory=memory,
        collectives=_by_kind(sent),
        compiled_flops=sum(one.times * one.flops for one in work) * topology.devices,
        step_seconds=step,
        exposed_seconds=exposed,
        bound={
            "memory": waiting / step,
            "arithmetic": (busy - waiting) / step,
            "network": exposed / step,
        },
        mfu=known.analytic_flops / (chip.flops * topology.devices * step),
        pairs_per_second=pairs,
        host_cores=(cores, float(chip.host_cores)),
        days=days,
        chip_hours=days * 24 * topology.chips,
        compile_seconds=seconds,
    )


def _by_kind(sent: list[Collective]) -> dict[str, tuple[int, float]]:
    return {
        kind: (sum(c.times for c in own), sum(c.total for c in own))
        for kind in KINDS
        if (own := [c for c in sent if c.kind == kind])
    }


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


def memory_by_kind(run: AbstractRun, analysis: Any) -> dict[str, float]:
    """Bytes per device by kind: a step's inputs, and what it allocates."""
    state = run.state
    kinds = {
        "parameters": state.parameters,
        "ema": state.ema,
        "optimizer": state.optimizer,
        "frozen": {net: w for net, w in run.weights.items() if net not in ("teacher", "base")},
        "base": run.weights.get("base", {}),
        "teacher": run.weights.get("teacher", {}),
        "batch": run.batch,
    }
    found = {kind: float(sum(map(shard_bytes, jax.tree.leaves(t)))) for kind, t in kinds.items()}
    found["activations"] = float(analysis.temp_size_in_bytes)
    found["program"] = float(analysis.generated_code_size_in_bytes)
    # The state is updated in place.
    fresh = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    found["total"] = float(
        analysis.argument_size_in_bytes
        + fresh
        + analysis.temp_size_in_bytes
        + analysis.generated_code_size_in_bytes
    )
    return found


def fsdp_ideal(run: AbstractRun) -> float:
    """Bytes that one device must move for one forward and backward pass of the network.

    Every sharded parameter is gathered once in its products' dtype, and once more if the backward
    pass recomputes the block. Every gradient is scattered once in float32. If the batch is sharded
    over `data` too, each device's shard of the gradients is summed over it.
    """
    mesh, config = run.mesh, run.config
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
            total += own * (fsdp - 1) * again * width
            continue
        total += own * (fsdp - 1) * (again * width + 4)
        data = mesh.shape["data"] * (mesh.shape["fsdp"] if fsdp == 1 else 1)
        total += 2 * own * 4 * (data - 1) / data
    return total * config.train.microbatches


def kernel_flops(operation: str, operands: list[Shape], results: tuple[Shape, ...]) -> int:
    """Operations of an attention kernel from its shapes, [B, heads, N, d] and [B, heads, M, d]."""
    del results
    if "splash" not in operation:
        return 0
    query, key = [shape.sizes for shape in operands if len(shape.sizes) == 4][:2]
    products = _FORWARD_PRODUCTS if "fwd" in operation else _BACKWARD_PRODUCTS
    return products * 2 * query[0] * query[1] * query[2] * key[2] * query[3]


def _lines(work: list[Work], topology: Topology, count: int) -> list[str]:
    chip = topology.chip
    slow = sorted(work, key=lambda one: -one.seconds(chip))[:count]
    return [
        f"{one.seconds(chip) * 1e3:8.2f} ms  {one.times:4} times  "
        f"{'memory' if one.bound_by_memory(chip) else 'arithmetic':10} "
        f"{one.flops / 1e9:9.1f} GFLOP {one.bytes / 1e6:9.1f} MB  {one.name}  {one.operation}"
        for one in slow
    ]
