"""One plan: the compiled step of a config on a topology, and what follows from it."""

import dataclasses
import math
import time
from typing import Any

import jax

from vosr_jax.compilation_cache import no_compilation_cache
from vosr_jax.config import Config
from vosr_jax.errors import UserError
from vosr_jax.planning.communication import (
    KINDS,
    Collective,
    collectives,
    exposed_seconds,
    fsdp_ideal,
)
from vosr_jax.planning.hlo import parse
from vosr_jax.planning.memory import memory_by_kind, start_memory
from vosr_jax.planning.roofline import kernel_flops, least_seconds, slowest_lines, work_of
from vosr_jax.planning.topology import Topology, devices_of, other_compiler
from vosr_jax.training.abstract import AbstractRun, abstract_run, analytic_flops
from vosr_jax.training.build import mesh_of
from vosr_jax.training.executable import identity, save_executable

_GIB, _MIB = 2**30, 2**20
# CPU seconds to make one pair from a JPEG file of two megapixels, by the pair's side; measured
# with benchmarks/pipeline.py on a core of an AMD EPYC (docs/data.md).
_MEASURED = {128: 0.0115, 512: 0.043}


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
      executable: file of the saved step, or "".
      not_saved: why a requested one is missing, or "".
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
    executable: str = ""
    not_saved: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)


def make_plan(
    config: Config,
    topology: Topology,
    *,
    slowest: int = 0,
    start: bool = False,
    executable: str | None = None,
) -> SlicePlan:
    """Compile the step that train.py would run on a topology, and read the program.

    Args:
      config: the experiment.
      topology: of the devices.
      slowest: number of slowest operations to list.
      start: also compile the program that makes the state, and compute what a start needs.
      executable: file for the compiled step, which `train.executable` loads.

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
            lowered = run.lower()
            compiled = lowered.compile()
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
    listed = tuple(slowest_lines(work, topology.chip, slowest))
    plan = dataclasses.replace(plan, slowest=listed, start=needed)
    if executable is None or not plan.fits:
        return plan
    try:
        save_executable(executable, compiled, identity(run.train_step, lowered, mesh))
    except UserError as error:
        # The plan took minutes and is worth printing.
        return dataclasses.replace(plan, not_saved=str(error))
    return dataclasses.replace(plan, executable=executable)


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


def cores_a_pair(side: int) -> float:
    """Cores that one pair per second keeps fully busy, by the crop's side in pixels."""
    (small, few), (large, many) = sorted(_MEASURED.items())
    share = (side**2 - small**2) / (large**2 - small**2)
    return max(few + share * (many - few), few)


def describe(plan: SlicePlan, topology: Topology) -> str:
    """A page about a plan: what was compiled, what was counted, what is modelled."""
    chip = topology.chip
    mesh = " x ".join(f"{axis} {size}" for axis, size in plan.mesh.items())
    chips = f"{topology.chips} chips"
    if chip.devices > 1:
        chips += f" of {chip.devices} devices (below, a chip is a device)"
    lines = [
        f"{plan.topology}: {chips}, {chip.memory / _GIB:.0f} GiB each; mesh {mesh}",
        f"{plan.batch_size} pairs an update, {plan.rows} on a chip at a time; remat {plan.remat}",
    ]
    trained, whole = plan.trained
    if trained < whole:
        share = trained / whole
        lines.append(f"adapters: {trained:,} of {whole:,} parameters are trained, {share:.2%}")
    lines.append("")
    if plan.why_not:
        return "\n".join([*lines, f"does NOT fit: {plan.why_not}"])
    share = plan.memory["total"] / chip.memory
    lines += [
        f"compiled in {plan.compile_seconds:.0f} s by the TPU compiler",
        f"  {'fits' if plan.fits else 'does NOT fit'}: {plan.memory['total'] / _GIB:.2f} GiB "
        f"a chip, {share:.0%} of its memory",
    ]
    for kind, size in plan.memory.items():
        if kind != "total" and size:
            lines.append(f"    {kind:12} {size / _GIB:7.3f} GiB")
    lines.append("  sent and received by a chip in a step:")
    for kind, (number, size) in plan.collectives.items():
        lines.append(f"    {kind:18} {number:5} times {size / _MIB:10.1f} MiB")
    total = sum(size for _, size in plan.collectives.values())
    if plan.gathered_bytes:
        lines.append(
            f"    {'all':18} {'':11} {total / _MIB:10.1f} MiB, "
            f"{total / plan.gathered_bytes:.2f} of one pass's ideal ({_ideal(plan)})"
        )
    if plan.start:
        lines += [
            "  the first start, before the first step:",
            f"    a chip           {plan.start['device'] / _GIB:7.3f} GiB at most, the state being "
            "made beside the frozen weights",
            f"    a host           reads {plan.start['host read'] / _GIB:.3f} GiB of weights, "
            f"holds {plan.start['host held'] / _GIB:.3f} GiB of them at a time",
        ]
    lines += [
        "counted in the traced step",
        f"    {plan.analytic_flops / 1e12 / plan.batch_size:.2f} TFLOP a pair, nothing twice",
        "modelled from the program, the chip's published peaks, and nothing else",
        f"    step             at least {plan.step_seconds * 1e3:.1f} ms; of it "
        + ", ".join(f"{what} {share:.0%}" for what, share in plan.bound.items()),
        f"    MFU              at most {plan.mfu:.1%}",
        f"    pairs a second   at most {plan.pairs_per_second:.1f}",
        f"    cores for data   {plan.host_cores[0]:.0f} of a host's {plan.host_cores[1]:.0f}"
        + (" (too few: the data cannot keep up)" if _starved(plan) else ""),
        f"    to the last step {plan.days:.2f} days, {plan.chip_hours:,.0f} chip hours",
    ]
    if plan.slowest:
        lines.append("slowest operations, of the step's seconds")
        lines += [f"    {line}" for line in plan.slowest]
    if plan.executable:
        lines.append(f"the compiled step is in {plan.executable}; give it as train.executable")
    return "\n".join(lines)


def _starved(plan: SlicePlan) -> bool:
    return plan.host_cores[0] > plan.host_cores[1]


def _ideal(plan: SlicePlan) -> str:
    return f"{plan.gathered_bytes / _MIB:.1f} MiB"
