"""Search for the batch, rematerialization and mesh that fit and give the most pairs per second.

Compiling a candidate takes minutes, so the search is a staircase. More pairs per chip never need
less recomputation. Each larger batch therefore begins with the last policy of the batch before,
and moves on to the next policy only if it does not fit. Then other meshes are tried with the best
of these.
"""

import dataclasses
from collections.abc import Callable

from vosr_jax.config import Config
from vosr_jax.errors import UserError
from vosr_jax.planning.plan import SlicePlan, make_plan
from vosr_jax.planning.topology import Topology

_ROWS = (4, 8, 16, 32)
# From the least recomputation to the most.
_REMAT = ("none", "attention", "dots", "full")
MakePlan = Callable[[Config, Topology], SlicePlan]
_GIB = 2**30


def sweep(
    config: Config,
    topology: Topology,
    tell: Callable[[str], None],
    make: MakePlan = make_plan,
) -> list[SlicePlan]:
    """Plans of all candidates, those that fit first, the fastest first.

    Args:
      config: the experiment; its batch, rematerialization and mesh are replaced.
      topology: of the devices.
      tell: gets one line per candidate.
      make: compiles one candidate.

    Raises:
      UserError: nothing could be planned.
    """
    plans: list[SlicePlan] = []

    def attempt(fsdp: int, remat: str, rows: int) -> SlicePlan | None:
        """Plan one candidate; return None if the compiler itself fails on it."""
        label = f"fsdp {fsdp or 'auto'}, {rows} pairs a chip, remat {remat}"
        try:
            plan = make(_candidate(config, topology, fsdp, remat, rows), topology)
        except UserError as error:
            tell(f"{label}: {error}")
            return None
        plans.append(plan)
        told = f"{plan.pairs_per_second:.0f} pairs/s" if plan.fits else "does not fit"
        tell(f"{label}: {told}")
        return plan

    policies = list(_REMAT)
    for rows in _ROWS:
        while policies:
            plan = attempt(0, policies[0], rows)
            if plan is not None and plan.fits:
                break
            policies.pop(0)
        if not policies:
            break
    fitting = [plan for plan in plans if plan.fits]
    if fitting:
        best = max(fitting, key=lambda plan: plan.pairs_per_second)
        for fsdp in _other_meshes(best.mesh["fsdp"], topology):
            attempt(fsdp, best.remat, best.rows)
    if not plans:
        raise UserError("no candidate could be compiled; the lines above say why")
    return sorted(plans, key=lambda plan: (not plan.fits, -plan.pairs_per_second))


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


def _other_meshes(automatic: int, topology: Topology) -> list[int]:
    """Other fsdp sizes inside a slice: half and twice the automatic one."""
    inside = topology.devices // topology.slices
    sizes = (automatic // 2, automatic * 2)
    return [size for size in sizes if 1 < size <= inside and inside % size == 0]


def _candidate(config: Config, topology: Topology, fsdp: int, remat, rows: int) -> Config:
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, remat=remat),
        mesh=dataclasses.replace(config.mesh, data=-1, fsdp=fsdp, tensor=1),
        train=dataclasses.replace(
            config.train, batch_size=rows * topology.devices, microbatches=1, frozen_chunks=1
        ),
    )
