"""What short number formats cost in grey levels, and what they save in time.

    python benchmarks/precision.py [--goldens DIR] [--depth 4] [--side 32]

Two sources: the release-shaped folder of tiny networks in tests/goldens/pipeline (or DIR's), end
to end through the upscaler; and a network of the 0.5B model's width with random weights and
visual tokens, whose latent is read as a picture of exact pixels (four channels in [-1, 1], 8 bits).
Beside the named precisions, one part alone in bfloat16 at a time, the rest in float32.
"""

import argparse
import dataclasses
import datetime
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vosr_jax import Upscaler
from vosr_jax.diffusion.branches import Remembered
from vosr_jax.diffusion.sampling import SamplerSettings, sample
from vosr_jax.models.lightning_dit import LightningDiT, LightningDiTSettings
from vosr_jax.restoration.precision import PRECISIONS, at_precision

_F32, _BF16 = jnp.float32, jnp.bfloat16
_PARTS = {
    "products alone": (_BF16, _F32, _F32),
    "residual stream alone": (_F32, _BF16, _F32),
    "time and modulation alone": (_F32, _F32, _BF16),
}


def lively(settings: LightningDiTSettings) -> LightningDiT:
    """Random weights of which every part shows: nothing starts at zero, gates are of size 1/2."""
    network = nnx.jit(lambda: LightningDiT(settings, rngs=nnx.Rngs(0)))()
    final = network.final.linear.kernel
    final[...] = jax.random.normal(jax.random.key(1), final.shape) / settings.width**0.5
    table = network.blocks.scale_shift_table
    table[...] = 0.5 * jax.random.normal(jax.random.key(2), table.shape)
    return network


def full_width(depth: int, side: int) -> Iterator[tuple[str, float, float, float]]:
    """(precision, mean and largest grey-level difference, seconds) of random weights."""
    settings = LightningDiTSettings.vosr_0_5b(depth=depth, latent_size=side)
    network = lively(settings)
    keys = jax.random.split(jax.random.key(3), 3)
    lq, noise = (jax.random.normal(key, (1, side, side, 4)) for key in keys[:2])
    tokens = jax.random.normal(keys[2], (1, 256, 768))
    sampler = SamplerSettings(5, guidance_scale=0.5)
    networks = {name: at_precision(network, name) for name in PRECISIONS}
    networks |= {name: network.computing_in(*kinds) for name, kinds in _PARTS.items()}
    exact = None
    for name, one in networks.items():
        graph, state = nnx.split(one)

        @jax.jit
        def run(state, lq, noise, tokens, graph=graph):
            branches = Remembered(nnx.merge(graph, state))
            return sample(branches, lq, noise, sampler, visual_tokens=tokens)

        picture = np.asarray(run(state, lq, noise, tokens))
        begin = time.perf_counter()
        jax.block_until_ready(run(state, lq, noise, tokens))
        spent = time.perf_counter() - begin
        exact = picture if exact is None else exact
        scale = 127.5 / np.abs(exact).max()
        difference = np.abs(picture - exact) * scale
        yield name, difference.mean(), difference.max(), spent


def golden(folder: Path) -> Iterator[tuple[str, float, float, float]]:
    """The same of the tiny multi-step release, end to end."""
    arguments = {"scale": 4, "steps": 6, "guidance_scale": 0.5, "output": "numpy", "tile_size": 0}
    exact = None
    for name in PRECISIONS:
        upscaler = Upscaler.from_pretrained(folder / "preset/ckpts/VOSR_0.5B_ms", precision=name)
        upscaler.model = dataclasses.replace(upscaler.model, truncate=False)
        image = folder / "inputs/square_16x16.png"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            picture = upscaler(image, colour_fix="none", **arguments)
            begin = time.perf_counter()
            upscaler(image, colour_fix="none", **arguments)
            spent = time.perf_counter() - begin
        exact = picture if exact is None else exact
        difference = 255 * np.abs(picture - exact)
        yield name, difference.mean(), difference.max(), spent


def main() -> None:
    """Print one table for each source, and the machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("VOSR_GOLDENS") or Path(__file__).parents[1] / "tests/goldens"
    parser.add_argument("--goldens", type=Path, default=default)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--side", type=int, default=32)
    o = parser.parse_args()
    device, cores = jax.devices()[0].device_kind, len(os.sched_getaffinity(0))
    print(f"{datetime.date.today()}, {device}, {cores} cores, load {os.getloadavg()[0]:.1f}")
    tables = {f"0.5B width, {o.depth} blocks, random weights, 5 steps": full_width(o.depth, o.side)}
    folder = Path(o.goldens) / "pipeline"
    if folder.is_dir():
        tables["tiny release, 6 steps, end to end"] = golden(folder)
    for title, rows in tables.items():
        print(f"\n| {title} | mean | worst | seconds |\n|---|---|---|---|", flush=True)
        for name, mean, worst, spent in rows:
            print(f"| {name} | {mean:.3f} | {worst:.2f} | {spent:.2f} |", flush=True)


if __name__ == "__main__":
    main()
