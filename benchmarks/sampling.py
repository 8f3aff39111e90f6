"""The sampler beside the official one: work and time of a guided run, random weights.

    python benchmarks/sampling.py --official DIR [--official-python PYTHON] [--depth 2] [--gpu]

DIR is a checkout of the official repository, run by a Python that has torch and einops. Both
sides take the 0.5B network's width, heads and tokens (fewer blocks), a 64x64 latent and 25
steps with both branches. Work: matrix products, attention's included, of the whole run. Ours
are counted in the program's own operations, times the length of each loop, and again by XLA in
the compiled programs with the loop over blocks unrolled (there with all elementwise operations);
the official ones by torch's FlopCounterMode. Time: float32 on this machine, medians of
alternating measurements; a step takes the same whichever it is, so a few are timed and
multiplied, and what we compute once is timed by itself. Beside the time on the clock stands the
processors' time of all threads, which other programs on the machine disturb less.
With --gpu: bfloat16 on either side, torch.compile on theirs, all steps timed, peak memory.
"""

import argparse
import contextlib
import dataclasses
import datetime
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend import core

from vosr_jax.diffusion.denoiser import CachedDenoiser
from vosr_jax.diffusion.parameterization import Parameterization
from vosr_jax.diffusion.sampler import (
    SamplerSettings,
    build_context,
    euler_step,
    step_velocity,
)
from vosr_jax.models.lightning_dit.network import LightningDiT, LightningDiTSettings
from vosr_jax.restoration.denoiser_programs import at_precision, first_finite

_SIDE, _TOKENS, _TOKEN_WIDTH = 64, 1024, 768
_FULL_DEPTH = 28
_SIDES = ("official", "ours")
_FORM = Parameterization()


class Ours:
    """Our network and its two programs."""

    def __init__(self, depth: int, *, gpu: bool = False):
        settings = LightningDiTSettings.vosr_0_5b(depth=depth)

        def build() -> LightningDiT:
            return LightningDiT(settings, rngs=nnx.Rngs(0))

        # Only shapes are needed to count.
        self.abstract = nnx.eval_shape(build)
        self._build, self._gpu = build, gpu

    @functools.cached_property
    def networks(self) -> list[LightningDiT]:
        """As `RestorationModel.networks`: where the fast one is bfloat16, the exact one too."""
        exact = nnx.jit(self._build)()
        return [at_precision(exact, "bfloat16"), exact] if self._gpu else [exact]

    @staticmethod
    def arrays() -> tuple:
        """(lq latent, noise, visual tokens)."""
        keys = jax.random.split(jax.random.key(0), 3)
        latent = (1, _SIDE, _SIDE, 4)
        shapes = (latent, latent, (1, _TOKENS, _TOKEN_WIDTH))
        return tuple(jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True))

    def programs(self, networks: list[LightningDiT], sampler: SamplerSettings) -> tuple:
        """(states, precompute, run) with states as the first argument of both."""
        split = [nnx.split(network) for network in networks]
        graphs, states = [graph for graph, _ in split], [state for _, state in split]

        def denoisers(states):
            merged = [nnx.merge(graph, state) for graph, state in zip(graphs, states, strict=True)]
            return [CachedDenoiser(one, _FORM, keep_kv=i == 0) for i, one in enumerate(merged)]

        def precomputed(states, tokens):
            called = denoisers(states)
            shared = [build_context(one, sampler) for one in called]
            return shared, [one.precompute(tokens) for one in called]

        def run(states, precomputed, lq, z, steps):
            shared, contexts = precomputed

            def body(index, z):
                step = [one.at(index) for one in shared]
                fast, *exact = (
                    functools.partial(step_velocity, *one, lq, z, guided=True)
                    for one in zip(denoisers(states), step, contexts, strict=True)
                )
                return euler_step(z, first_finite(fast(), exact[0] if exact else None)[0], step[0])

            return jax.lax.fori_loop(0, steps, body, z)

        return states, precomputed, run


def counted_products(depth: int, steps: int) -> int:
    """Floating-point operations of all matrix products of a run, loops counted in full."""
    ours, sampler = Ours(depth), SamplerSettings(steps, guidance_scale=0.5)
    states, prepared, run = ours.programs([ours.abstract], sampler)
    lq, noise, tokens = jax.eval_shape(ours.arrays)
    made = jax.eval_shape(prepared, states, tokens)
    whole = jax.make_jaxpr(lambda *given: run(*given, steps))(states, made, lq, noise)
    return _products(jax.make_jaxpr(prepared)(states, tokens).jaxpr) + _products(whole.jaxpr)


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


@contextlib.contextmanager
def _unrolled() -> Iterator[None]:
    """Loops over blocks without loops, since XLA's cost analysis counts a loop's body once."""
    scan, mapped = jax.lax.scan, jax.lax.map

    def unrolled_map(function, xs):
        _, ys = scan(lambda _, x: (None, function(x)), None, xs, unroll=True)
        return ys

    jax.lax.scan, jax.lax.map = functools.partial(scan, unroll=True), unrolled_map
    try:
        yield
    finally:
        jax.lax.scan, jax.lax.map = scan, mapped


def xla_operations(depth: int, steps: int) -> float:
    """What XLA counts in the programs of one and two blocks, extrapolated to depth and steps."""

    def of(depth: int) -> np.ndarray:
        ours, sampler = Ours(depth), SamplerSettings(steps, guidance_scale=0.5)
        states, prepared, run = ours.programs([ours.abstract], sampler)
        lq, noise, tokens = jax.eval_shape(ours.arrays)
        made = jax.eval_shape(prepared, states, tokens)
        with _unrolled():
            programs = (
                jax.jit(prepared).lower(states, tokens),
                jax.jit(lambda *given: run(*given, 1)).lower(states, made, lq, noise),
            )
            once, step = (program.compile().cost_analysis()["flops"] for program in programs)
        return np.array([once, steps * step])

    one, two = of(1).sum(), of(2).sum()
    return one + (depth - 1) * (two - one)


def formula(depth: int, steps: int) -> tuple[int, int]:
    """(official, ours): the same counts from the sizes alone."""
    s = LightningDiTSettings.vosr_0_5b()
    n, m, d = (_SIDE // s.patch_size) ** 2, _TOKENS, s.width
    alone = n * (4 * d * d + 2 * n * d + 3 * d * s.swiglu_width)
    cross_query, cross_memory = n * (2 * d * d + 2 * m * d), m * 2 * d * d
    mlp = s.token_hidden_ratio * d * (_TOKEN_WIDTH + d)
    patches = n * 4 * (8 * d + 4 * d)
    time_mlp = 256 * d + d * d + 8 * d * d
    rows = 2 * steps
    official = rows * (depth * (alone + cross_query + cross_memory) + m * mlp + patches + time_mlp)
    once = (m + 1) * mlp + depth * (cross_memory + 2 * d * d) + steps * time_mlp
    ours = rows * (depth * alone + patches) + steps * depth * cross_query + once
    return 2 * official, 2 * ours


class Official:
    """The other side, in a process of its own."""

    def __init__(self, python: str, folder: Path, **options):
        script = Path(__file__).with_name("sampling_official.py")
        command = [python, str(script), str(folder.resolve()), json.dumps(options)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.facts = self._answer()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the official side ended; its message is above")
        return json.loads(line)

    def ask(self, do: str, **command) -> dict:
        """One command's answer."""
        self._process.stdin.write(json.dumps({"do": do, **command}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()


def seconds(call: Callable) -> tuple[float, float]:
    """(on the clock, of the processors) of one call whose result is waited for."""
    begin, used = time.perf_counter(), time.process_time()
    jax.block_until_ready(call())
    return time.perf_counter() - begin, time.process_time() - used


def our_calls(depth: int, steps: int, *, gpu: bool) -> dict[str, Callable]:
    """What is timed of ours: "once", "sample" (steps of it) and "block", warmed up."""
    ours = Ours(depth, gpu=gpu)
    sampler = SamplerSettings(25, guidance_scale=0.5)
    states, prepared, run = ours.programs(ours.networks, sampler)
    lq, noise, tokens = ours.arrays()
    prepare_fn, run_fn = jax.jit(prepared), jax.jit(run)
    made = prepare_fn(states, tokens)
    network = ours.networks[0]
    graph, stacked = nnx.split(network.blocks)
    first = jax.tree.map(lambda x: x[0], stacked)
    from vosr_jax.models.rotary import rotary_table

    grid = _SIDE // network.settings.patch_size
    table = rotary_table((grid, grid), grid, network.settings.head_width)
    kind, width = network.dtype, network.settings.width
    shapes = (2, grid**2, width), (2, 6, width), (2, _TOKENS, width)
    x, modulation, context = (jnp.ones(shape, kind) for shape in shapes)

    @jax.jit
    def block(parameters, x, modulation, context):
        block = nnx.merge(graph, parameters)
        cross = functools.partial(block.cross_attn, context=context, dtype=kind)
        return block(x, modulation, cross, table, kind)

    calls = {
        "once": lambda: prepare_fn(states, tokens),
        "sample": lambda: run_fn(states, made, lq, noise, steps),
        "block": lambda: block(first, x, modulation, context),
    }
    for call in calls.values():
        jax.block_until_ready(call())
    return calls


def timed(official: Official, calls: dict[str, Callable], steps: int, rounds: int) -> dict:
    """Medians of alternating measurements, {"ours sample": (clock, processors), ...}."""
    official.ask("sample", steps=1)
    official.ask("block")
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for what in ("sample", "block"):
            found.setdefault(f"ours {what}", []).append(seconds(calls[what]))
            answer = official.ask(what, steps=steps)
            found.setdefault(f"official {what}", []).append((answer["clock"], answer["cpu"]))
        found.setdefault("ours once", []).append(seconds(calls["once"]))
    return {name: np.median(values, axis=0) for name, values in found.items()}


@dataclasses.dataclass(frozen=True)
class Work:
    """Operations of a whole run, in 10^12."""

    official: float
    ours: float

    @property
    def ratio(self) -> float:
        """Ours over theirs."""
        return self.ours / self.official


def work(official: Official, depth: int, steps: int) -> Work:
    """Counted on either side and held against the formula."""
    # Every step of theirs is the same.
    theirs = steps * official.ask("flops", depth=depth, steps=1)["flops"]
    ours = counted_products(depth, steps)
    for counted, expected in zip((theirs, ours), formula(depth, steps), strict=True):
        if abs(counted / expected - 1) > 1e-3:
            print(f"warning: {counted:.4e} operations counted, {expected:.4e} by formula")
    return Work(theirs / 1e12, ours / 1e12)


def main() -> None:
    """Print one table and its machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--official", type=Path, required=True)
    parser.add_argument("--official-python", default=sys.executable)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--timed-steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gpu", action="store_true", help="bfloat16 against torch.compile")
    o = parser.parse_args()
    if o.gpu and jax.default_backend() != "gpu":
        sys.exit("--gpu needs a GPU that jax sees")
    timed_steps = o.steps if o.gpu else o.timed_steps
    official = Official(
        o.official_python,
        o.official,
        side=_SIDE,
        depth=o.depth,
        width=1024,
        heads=16,
        tokens=_TOKENS,
        token_width=_TOKEN_WIDTH,
        threads=0 if o.gpu else len(os.sched_getaffinity(0)),
        gpu=o.gpu,
        compiled=o.gpu,
    )
    print("| guided run | official | ours | ours/official |\n|---|---|---|---|")

    def row(name: str, theirs: float, ours: float) -> None:
        print(f"| {name} | {theirs:.2f} | {ours:.2f} | {ours / theirs:.3f} |", flush=True)

    full, here = (work(official, depth, o.steps) for depth in (_FULL_DEPTH, o.depth))
    for depth, found in ((_FULL_DEPTH, full), (o.depth, here)):
        row(f"work, {depth} blocks, 10^12 operations", found.official, found.ours)
    times = timed(official, our_calls(o.depth, timed_steps, gpu=o.gpu), timed_steps, o.rounds)
    scale, reached = o.steps / timed_steps, []
    ours = times["ours once"] + times["ours sample"] * scale
    theirs = times["official sample"] * scale
    for i, clock in enumerate(("seconds", "processors' seconds")):
        row(f"one plain block, 2 rows, {clock}", *(times[f"{w} block"][i] for w in _SIDES))
        row(f"{o.steps} steps, {o.depth} blocks, {clock}", theirs[i], ours[i])
        expected = here.ratio * times["ours block"][i] / times["official block"][i]
        reached.append(f"{expected / (ours[i] / theirs[i]):.0%} in {clock}")
    if not o.gpu:
        xla = xla_operations(_FULL_DEPTH, o.steps) / 1e12
        row(f"ours by XLA, elementwise too, {_FULL_DEPTH} blocks", full.official, xla)
    device = jax.devices()[0].device_kind
    print(f"\n{datetime.date.today()}, {device}, {len(os.sched_getaffinity(0))} cores, ", end="")
    print(f"load {os.getloadavg()[0]:.1f}; jax {jax.__version__}, torch {official.facts['torch']}")
    print(f"torch threads {official.facts['threads']}, XLA one a core; ", end="")
    print(f"{timed_steps} of {o.steps} steps timed, median of {o.rounds}")
    print(f"of work ratio x block ratio reached: {', '.join(reached)} (wanted: 95%)")
    if o.gpu:
        peak = official.ask("sample", steps=1)["peak"] / 2**30
        ours_peak = jax.devices()[0].memory_stats()["peak_bytes_in_use"] / 2**30
        print(f"peak memory: official {peak:.2f} GiB, ours {ours_peak:.2f} GiB; ", end="")
        print(f"{theirs[0] / ours[0]:.2f} times as fast (wanted: 1.3)")
    official.close()


if __name__ == "__main__":
    main()
