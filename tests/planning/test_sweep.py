"""The order in which candidates are compiled, by a compiler that costs nothing."""

import dataclasses

import pytest

from tests.training.tiny import tiny_config
from vosr_jax.errors import UserError
from vosr_jax.planning.plan import SlicePlan
from vosr_jax.planning.sweep import describe_sweep, sweep
from vosr_jax.planning.topology import parse_topology

TOPOLOGY = parse_topology("v5e:4x4")
# GiB a pair, and the time that a pair takes with it.
COSTS = {"none": (4.0, 1.0), "attention": (1.0, 1.2), "dots": (0.9, 1.5), "full": (0.4, 1.6)}
FIXED = {2: 1.0, 4: 1.2, 8: 1.1}


class Compiler:
    """Memory grows with the pairs; every update has a fixed price that depends on fsdp."""

    def __init__(self, broken=()):
        self.broken = broken
        self.asked = []

    def __call__(self, config, topology) -> SlicePlan:
        remat, fsdp = config.model.remat, config.mesh.fsdp or 4
        rows = config.train.batch_size // topology.devices
        self.asked.append((fsdp, remat, rows))
        if remat in self.broken:
            raise UserError("the TPU compiler fails on this step")
        memory, seconds = COSTS[remat]
        mesh = {"data": topology.devices // fsdp, "fsdp": fsdp, "tensor": 1}
        plan = SlicePlan(topology.name, mesh, config.train.batch_size, rows, remat, fits=False)
        if rows * memory > 16:
            return dataclasses.replace(plan, why_not="out of memory")
        took = FIXED[fsdp] + rows * seconds
        return dataclasses.replace(
            plan,
            fits=True,
            memory={"total": rows * memory * 2**30},
            step_seconds=took,
            pairs_per_second=config.train.batch_size / took,
        )


def test_recomputation_grows_with_the_batch_and_other_meshes_are_tried_with_the_best():
    compiler, told = Compiler(), []
    plans = sweep(tiny_config(), TOPOLOGY, told.append, compiler)
    assert compiler.asked == [
        (4, "none", 4),
        (4, "none", 8),
        (4, "attention", 8),
        (4, "attention", 16),
        (4, "attention", 32),
        (4, "dots", 32),
        (4, "full", 32),
        (2, "attention", 16),
        (8, "attention", 16),
    ]
    assert (plans[0].mesh["fsdp"], plans[0].remat, plans[0].rows) == (2, "attention", 16)
    assert [plan.fits for plan in plans] == sorted((plan.fits for plan in plans), reverse=True)
    assert len(told) == len(plans) == len(describe_sweep(plans).splitlines()) - 2


def test_a_candidate_on_which_the_compiler_fails_is_passed_over_and_told():
    told = []
    plans = sweep(tiny_config(), TOPOLOGY, told.append, Compiler(broken=("none", "attention")))
    assert plans[0].fits and not {"none", "attention"} & {plan.remat for plan in plans}
    assert told[0].endswith("fails on this step")


def test_nothing_compiled_is_an_error():
    with pytest.raises(UserError, match="no candidate"):
        sweep(tiny_config(), TOPOLOGY, lambda text: None, Compiler(broken=tuple(COSTS)))
