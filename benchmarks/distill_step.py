"""The distillation step beside the official one: work and time, random weights.

    python benchmarks/distill_step.py --official DIR [--official-python PYTHON] [--depth 2]

DIR is a checkout of the official repository, run by a Python that has torch and einops. Both
sides take the 0.5B network's width, heads and tokens with fewer blocks, 64x64 latents, RCGM with
a teacher, AdamW, clipping and EMA; the frozen nets, the same on both sides, are left out. No
rematerialization on either side. Work: matrix products, attention's included, of the whole step;
ours counted in the program's own operations, times the length of each loop, and again by XLA in
the compiled program of one block (there with all elementwise operations); the official ones by
torch's FlopCounterMode. Time: float32 on this machine, medians of alternating measurements.
"""

import argparse
import dataclasses
import datetime
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend import core
from jax.interpreters import partial_eval
from official_process import Official, timed

from vosr_jax.config import OptimizerConfig
from vosr_jax.diffusion.denoiser import CachedDenoiser
from vosr_jax.diffusion.guidance import GuidanceSettings
from vosr_jax.diffusion.objectives import rcgm
from vosr_jax.models.lightning_dit.network import LightningDiT, LightningDiTSettings
from vosr_jax.models.rotary import rotary_table
from vosr_jax.parameters.blueprint import Blueprint
from vosr_jax.training.optimizer import make_optimizer
from vosr_jax.training.state import TrainState, new_state
from vosr_jax.training.step import TrainStep

_SIDE, _TOKENS, _TOKEN_WIDTH = 64, 1024, 768
_FULL_DEPTH = 28
_SETTINGS = rcgm.RCGMSettings(guidance=GuidanceSettings(scale=0.5))


class Ours:
    """Our step at some depth: `shapes` of its arguments, and the function itself."""

    def __init__(self, depth: int, rows: int):
        def blueprint(r_embedding: bool) -> Blueprint:
            settings = LightningDiTSettings.vosr_0_5b(depth=depth, r_embedding=r_embedding)
            return Blueprint(lambda: LightningDiT(settings, rngs=nnx.Rngs(0)))

        self._student, self._teacher = blueprint(True), blueprint(False)
        self._rows = rows
        optimizer = OptimizerConfig(learning_rate=2e-5)
        self._method = TrainStep(
            network=self._student,
            frozen=None,  # type: ignore[arg-type]
            objective=_SETTINGS,
            optimizer=make_optimizer(optimizer, 1),
            schedule=lambda _: 2e-5,
            ema_decay=0.9999,
            ema_ramp=False,
            microbatches=1,
            seed=0,
        )

    def arguments(self) -> tuple[TrainState, dict, dict]:
        """(state, teacher, batch); run it under jit, or for its shapes."""
        state = new_state(self._student.initialize(), self._method.optimizer)
        keys = jax.random.split(jax.random.key(0), 3)
        latent = (self._rows, _SIDE, _SIDE, 4)
        batch = {
            "hr_latent": jax.random.normal(keys[0], latent),
            "lq_latent": jax.random.normal(keys[1], latent),
            "visual_tokens": jax.random.normal(keys[2], (self._rows, _TOKENS, _TOKEN_WIDTH)),
            "index": jnp.zeros((self._rows, 2), jnp.uint32),
        }
        return state, self._teacher.initialize(), batch

    def step(self, state: TrainState, teacher: dict, batch: dict) -> TrainState:
        """One update."""
        form = _SETTINGS.parameterization

        def loss(parameters: dict):
            student = CachedDenoiser(self._student.merge(parameters), form)
            taught = CachedDenoiser(self._teacher.merge(teacher), form, keep_kv=False)
            key = jax.random.fold_in(jax.random.key(0), state.step)
            return rcgm.loss(student, batch, key, _SETTINGS, teacher_fn=taught)[0]

        return self._method.update(state, jax.grad(loss)(state.parameters))

    def products(self) -> int:
        """Floating-point operations of all matrix products of a step, loops counted in full."""
        closed = jax.make_jaxpr(self.step)(*jax.eval_shape(self.arguments))
        needed, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
        return _products(needed)

    def xla_operations(self) -> float:
        """What XLA counts in the compiled step; right for one block, whose loop it removes."""
        compiled = jax.jit(self.step).lower(*jax.eval_shape(self.arguments)).compile()
        return compiled.cost_analysis()["flops"]


def _products(jaxpr: core.Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            inputs = equation.invars[0].aval.shape
            shared = np.prod([inputs[axis] for axis in contracted])
            total += int(2 * shared * np.prod(equation.outvars[0].aval.shape))
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        total += times * sum(map(_products, core.jaxprs_in_params(equation.params)))
    return total


def evaluations(depth: int, rows: int) -> list[tuple[str, float, float, str]]:
    """(what for, official operations, ours, what is shared), from the sizes alone.

    A backward pass counts as two forward ones; the little it saves at the inputs is left out.
    """
    s = LightningDiTSettings.vosr_0_5b()
    n, m, d = (_SIDE // s.patch_size) ** 2, _TOKENS, s.width
    alone = depth * n * (4 * d * d + 2 * n * d + 3 * d * s.swiglu_width) + 48 * n * d
    attend = depth * n * (2 * d * d + 2 * m * d)
    tokens = depth * m * 2 * d * d + m * s.token_hidden_ratio * d * (_TOKEN_WIDTH + d)
    whole, unit = alone + attend + tokens, 2 * rows / 1e12
    rest = alone + attend
    table = [
        ("teacher, full branch", whole, whole, "one call with the weak branch"),
        ("teacher, weak branch", whole, alone, "attention to equal tokens is a constant"),
        ("student at (t, t), with gradient", 3 * whole, 3 * whole, "makes keys and values"),
        ("student at (t, r), with gradient", 3 * whole, 3 * rest, "reads them; one call"),
        ("student, two steps without gradient", 2 * whole, 2 * rest, "reads them"),
    ]
    return [(name, unit * theirs, unit * ours, note) for name, theirs, ours, note in table]


def block_call(rows: int) -> Callable:
    """One block's forward and backward pass, warmed up."""
    settings = LightningDiTSettings.vosr_0_5b(depth=1)
    network = LightningDiT(settings, rngs=nnx.Rngs(0))
    graph, stacked = nnx.split(network.blocks)
    first = jax.tree.map(lambda x: x[0], stacked)
    grid, width = _SIDE // settings.patch_size, settings.width
    table = rotary_table((grid, grid), grid, settings.head_width)

    @jax.jit
    def both(parameters, x, modulation, context):
        def total(parameters, x, context):
            block = nnx.merge(graph, parameters)
            cross = functools.partial(block.cross_attn, context=context, dtype=jnp.float32)
            return jnp.sum(block(x, modulation, cross, table, jnp.float32))

        return jax.grad(total, argnums=(0, 1, 2))(parameters, x, context)

    shapes = (rows, grid**2, width), (rows, 6, width), (rows, _TOKENS, width)
    inputs = [jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes)]
    jax.block_until_ready(both(first, *inputs))
    return lambda: both(first, *inputs)


def step_call(depth: int, rows: int) -> Callable:
    """One step after the other, the state donated, warmed up."""
    ours = Ours(depth, rows)
    state, teacher, batch = jax.jit(ours.arguments)()
    step = jax.jit(ours.step, donate_argnums=0)
    held = {"state": step(state, teacher, batch)}
    jax.block_until_ready(held)

    def call():
        held["state"] = step(held["state"], teacher, batch)
        return held["state"]

    return call


@dataclasses.dataclass(frozen=True)
class Work:
    """Operations of a whole step, in 10^12."""

    official: float
    ours: float

    @property
    def ratio(self) -> float:
        """Ours over theirs."""
        return self.ours / self.official


def work(official: Official, rows: int) -> tuple[Work, Work]:
    """Counted for one and for two blocks."""
    return tuple(  # type: ignore[return-value]
        Work(
            official.ask("flops", depth=depth)["flops"] / 1e12, Ours(depth, rows).products() / 1e12
        )
        for depth in (1, 2)
    )


def main() -> None:
    """Print the tables and their machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--official", type=Path, required=True)
    parser.add_argument("--official-python", default=sys.executable)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    o = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    official = Official(
        "distill_step_official.py",
        o.official_python,
        o.official,
        side=_SIDE,
        depth=o.depth,
        rows=o.rows,
        width=1024,
        heads=16,
        tokens=_TOKENS,
        token_width=_TOKEN_WIDTH,
        threads=cores,
    )
    one, two = work(official, o.rows)

    def at(depth: int) -> Work:
        def line(a: float, b: float) -> float:
            return a + (depth - 1) * (b - a)

        return Work(line(one.official, two.official), line(one.ours, two.ours))

    xla = Ours(1, o.rows).xla_operations() / 1e12
    calls = {"step": step_call(o.depth, o.rows), "block": block_call(o.rows)}
    times = timed(official, calls, o.rounds)
    official.close()

    step = times["ours step"] / times["official step"]
    block = times["ours block"] / times["official block"]
    here = at(o.depth)
    print(f"\n{datetime.date.today()}, {cores} cores, load {os.getloadavg()[0]:.1f}; ", end="")
    print(f"jax {jax.__version__}, torch {official.facts['torch']}; {o.rows} rows, ", end="")
    print(f"median of {o.rounds}\n")
    print("| distillation step | official | ours | ours/official |\n|---|---|---|---|")
    for depth in sorted({_FULL_DEPTH, o.depth, 1}, reverse=True):
        found = at(depth)
        print(f"| work, {depth} blocks, 10^12 operations | {found.official:.3f} ", end="")
        print(f"| {found.ours:.3f} | {found.ratio:.3f} |")
    print(f"| the same by XLA, elementwise too, 1 block | | {xla:.3f} ", end="")
    print(f"| {xla / one.official:.3f} |")
    for name, what in (
        (f"step, {o.depth} blocks, seconds", "step"),
        ("one plain block, forward and backward, seconds", "block"),
    ):
        theirs, ours = times[f"official {what}"], times[f"ours {what}"]
        print(f"| {name} | {theirs:.3f} | {ours:.3f} | {ours / theirs:.3f} |")
    print(f"\nwork ratio x block ratio = {here.ratio * block:.3f}; reached ", end="")
    print(f"{here.ratio * block / step:.0%} of it (wanted: 95%)\n")
    print(f"| evaluation, {_FULL_DEPTH} blocks, by formula | official | ours | |")
    print("|---|---|---|---|")
    for name, theirs, ours, note in evaluations(_FULL_DEPTH, o.rows):
        print(f"| {name} | {theirs:.3f} | {ours:.3f} | {note} |")


if __name__ == "__main__":
    main()
