"""Which batch, rematerialization and mesh give the most pairs a second and fit."""

import dataclasses
import itertools
from collections.abc import Callable

from vosr_jax.config import Config
from vosr_jax.planning.plan import Plan, make_plan
from vosr_jax.planning.topology import Topology

_ROWS = (4, 8, 16, 32)
_REMAT = ("full", "attention", "dots")


def sweep(config: Config, topology: Topology, tell: Callable[[str], None]) -> list[Plan]:
    """Plans of all candidates, those that fit first, the fastest first.

    A policy that does not fit is not tried with larger batches.

    Args:
      config: the experiment; its batch, rematerialization and mesh are replaced.
      topology: where.
      tell: gets a line a candidate, for each takes minutes.
    """
    plans: list[Plan] = []
    for (data, fsdp), remat in itertools.product(_meshes(topology), _REMAT):
        for rows in _ROWS:
            candidate = _candidate(config, topology, data, fsdp, remat, rows)
            plan = make_plan(candidate, topology)
            plans.append(plan)
            verdict = f"{plan.pairs_per_second:.0f} pairs/s" if plan.fits else "does not fit"
            tell(f"mesh {data} x {fsdp}, {rows} pairs a chip, remat {remat}: {verdict}")
            if not plan.fits:
                break
    return sorted(plans, key=lambda plan: (not plan.fits, -plan.pairs_per_second))


def _meshes(topology: Topology) -> list[tuple[int, int]]:
    """(data, fsdp): all of a slice over fsdp, and where it is large, groups of 16 or 64."""
    inside = topology.chips // topology.slices
    groups = {inside, *(size for size in (16, 64) if size < inside and inside % size == 0)}
    return [(topology.chips // fsdp, fsdp) for fsdp in sorted(groups)]


def _candidate(
    config: Config, topology: Topology, data: int, fsdp: int, remat, rows: int
) -> Config:
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, remat=remat),
        mesh=dataclasses.replace(config.mesh, data=data, fsdp=fsdp, tensor=1),
        train=dataclasses.replace(
            config.train, batch_size=rows * topology.chips, microbatches=1, frozen_chunks=1
        ),
    )
