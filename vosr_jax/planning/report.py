"""A plan as readable text."""

from vosr_jax.planning.plan import SlicePlan
from vosr_jax.planning.topology import Topology

_GIB, _MIB = 2**30, 2**20


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
    return "\n".join(lines)


def _starved(plan: SlicePlan) -> bool:
    return plan.host_cores[0] > plan.host_cores[1]


def _ideal(plan: SlicePlan) -> str:
    return f"{plan.gathered_bytes / _MIB:.1f} MiB"


def describe_sweep(plans: list[SlicePlan]) -> str:
    """A table of a sweep's plans, the best that fits first."""
    rows = [
        "| mesh | pairs a chip | remat | fits | GiB | ms a step | pairs/s | MFU |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for plan in plans:
        mesh = " x ".join(map(str, plan.mesh.values()))
        rest = "| | | |"
        if plan.memory:
            rest = (
                f"{plan.memory['total'] / _GIB:.1f} | {plan.step_seconds * 1e3:.0f} "
                f"| {plan.pairs_per_second:.0f} | {plan.mfu:.1%} |"
            )
        fits = "yes" if plan.fits else "no"
        rows.append(f"| {mesh} | {plan.rows} | {plan.remat} | {fits} | {rest}")
    return "\n".join(rows)
