"""What short number formats cost in grey levels, and what they save in time.

    python benchmarks/precision.py [--goldens DIR] [--depth 4] [--side 32] [--stream 126]

Three sources: the release-shaped folder of tiny networks in tests/goldens/pipeline (or DIR's),
end to end through the upscaler; a network of the 0.5B model's width with random weights and
visual tokens, scaled so that its residual stream reaches a size, whose latent is read as a
picture of exact pixels (four channels in [-1, 1], 8 bits); and the released autoencoders' widths
with random weights. Beside the named precisions, one part alone in bfloat16 at a time, the rest
in float32.
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
from vosr_jax.diffusion.denoiser import CachedDenoiser
from vosr_jax.diffusion.sampler import SamplerSettings, sample
from vosr_jax.models.autoencoders import decode, encode
from vosr_jax.models.autoencoders.qwen import QwenAutoencoder, QwenSettings
from vosr_jax.models.autoencoders.sd import SDAutoencoder, SDSettings
from vosr_jax.models.layers import products_in
from vosr_jax.models.lightning_dit.network import LightningDiT, LightningDiTSettings
from vosr_jax.restoration.denoiser_programs import at_precision
from vosr_jax.restoration.settings import PRECISIONS

NAMES = tuple(name for name in PRECISIONS if name != "auto")
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


def scale_stream(network: LightningDiT, target: float, inputs: tuple) -> float:
    """Scale what is added to the residual stream until its largest value is `target`.

    The blocks' inputs are normalized and so keep their size; what patches, gates and
    cross-attention add grows. Returns the value before.
    """
    condition, noisy, tokens = inputs
    time, context = network.time_features(jnp.ones(1)), network.token_context(tokens)
    before = float(jnp.abs(network.block_outputs(condition, noisy, time, context)).max())
    factor = target / before
    cross, gates = network.blocks.cross_attn, jnp.array([2, 5])
    for layer in (network.patch_embed, cross.proj):
        for parameter in (layer.kernel, layer.bias):
            parameter[...] = parameter[...] * factor
    for parameter in (
        network.blocks.scale_shift_table,
        network.modulation.kernel,
        network.modulation.bias,
    ):
        parameter[...] = parameter[...].at[..., gates, :].multiply(factor)
    return before


def full_width(depth: int, side: int, stream: float) -> Iterator[tuple[str, float, float, float]]:
    """(precision, mean and largest grey-level difference, seconds) of random weights."""
    settings = LightningDiTSettings.vosr_0_5b(depth=depth, latent_size=side)
    network = lively(settings)
    keys = jax.random.split(jax.random.key(3), 3)
    lq, noise = (jax.random.normal(key, (1, side, side, 4)) for key in keys[:2])
    tokens = jax.random.normal(keys[2], (1, 256, 768))
    if stream:
        scale_stream(network, stream, (lq, noise, tokens))
    sampler = SamplerSettings(5, guidance_scale=0.5)
    networks = {name: at_precision(network, name) for name in NAMES}
    networks |= {name: network.with_dtype(*kinds) for name, kinds in _PARTS.items()}
    exact = None
    for name, one in networks.items():
        graph, state = nnx.split(one)

        @jax.jit
        def run(state, lq, noise, tokens, graph=graph):
            denoiser = CachedDenoiser(nnx.merge(graph, state))
            return sample(denoiser, lq, noise, sampler, visual_tokens=tokens)

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
    for name in NAMES:
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


def autoencoders(side: int) -> Iterator[tuple[str, float, float, float]]:
    """The same of the released autoencoders' widths, there and back, with random weights."""
    keys = jax.random.split(jax.random.key(4), 2)
    coarse = jax.random.uniform(keys[0], (1, side // 8, side // 8, 3), minval=-1)
    image = jax.image.resize(coarse, (1, side, side, 3), "cubic").clip(-1, 1)
    for kind, make in (
        (
            "SD 2.1 with the light decoder",
            lambda: SDAutoencoder(SDSettings.sd21_light(), rngs=nnx.Rngs(0)),
        ),
        ("Qwen-Image 2D", lambda: QwenAutoencoder(QwenSettings(), rngs=nnx.Rngs(0))),
    ):
        exact_network, exact = nnx.jit(make)(), None
        for dtype in ("float32", "float16", "bfloat16"):
            network = exact_network if dtype == "float32" else products_in(exact_network, dtype)
            graph, state = nnx.split(network)

            @jax.jit
            def run(state, image, graph=graph):
                network = nnx.merge(graph, state)
                return decode(network, encode(network, image))

            picture = np.asarray(run(state, image))
            begin = time.perf_counter()
            jax.block_until_ready(run(state, image))
            spent = time.perf_counter() - begin
            exact = picture if exact is None else exact
            difference = np.abs(picture - exact) * 127.5 / np.abs(exact).max()
            yield f"{kind}, {dtype}", difference.mean(), difference.max(), spent


def main() -> None:
    """Print one table for each source, and the machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("VOSR_GOLDENS") or Path(__file__).parents[1] / "tests/goldens"
    parser.add_argument("--goldens", type=Path, default=default)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--stream", type=float, default=126.0, help="largest value, 0: as it is")
    o = parser.parse_args()
    device, cores = jax.devices()[0].device_kind, len(os.sched_getaffinity(0))
    print(f"{datetime.date.today()}, {device}, {cores} cores, load {os.getloadavg()[0]:.1f}")
    size = f"stream up to {o.stream:g}" if o.stream else "stream as it is"
    title = f"0.5B width, {o.depth} blocks, random weights, {size}, 5 guided steps"
    tables = {
        title: full_width(o.depth, o.side, o.stream),
        f"autoencoders, random weights, {4 * o.side} px there and back": autoencoders(4 * o.side),
    }
    folder = Path(o.goldens) / "pipeline"
    if folder.is_dir():
        tables["tiny release, 6 steps, end to end"] = golden(folder)
    for title, rows in tables.items():
        print(f"\n| {title} | mean | worst | seconds |\n|---|---|---|---|", flush=True)
        for name, mean, worst, spent in rows:
            print(f"| {name} | {mean:.3f} | {worst:.2f} | {spent:.2f} |", flush=True)


if __name__ == "__main__":
    main()
