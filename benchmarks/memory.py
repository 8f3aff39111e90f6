"""Peak memory of restoring pictures of several sizes, whole and in tiles.

    python benchmarks/memory.py [--sizes 512,1024,2048,4096] [--parts encoder,denoiser,decoder]
                                [--tile-size 512] [--whole] [--narrow 1] [--depth 1]
                                [--limit 600] [--programs]

Random weights in the sizes of the released 0.5B model: Stable Diffusion's encoder, the light
decoder, a denoiser of --depth blocks without visual tokens. --narrow divides every width, so that
large pictures are feasible on a small machine. Each row is a process of its own. On CPU its
memory is the peak resident set, in which Python, the libraries, the compiler, the host's maps and
the weights are: "at rest" is what it was before the first picture. On an accelerator both are
what the device reports. The denoiser takes one step without guidance, since steps change no
memory. --programs adds what the compiler needs for the largest program of each part in tiles,
which does not depend on the picture: this is what bounds an accelerator.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from process_memory import peak_memory

_PARTS = ("encoder", "denoiser", "decoder")


def main() -> None:
    """Print the tables, or measure one row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="512,1024,2048,4096", help="sides of square results")
    parser.add_argument("--parts", default=",".join(_PARTS))
    parser.add_argument("--tile-size", type=int, default=512)
    parser.add_argument("--whole", action="store_true", help="also rows without tiles")
    parser.add_argument("--narrow", type=int, default=1, help="divide every width by this")
    parser.add_argument("--depth", type=int, default=1, help="blocks of the denoiser")
    parser.add_argument("--limit", type=float, default=600, help="seconds a row may take")
    parser.add_argument("--programs", action="store_true", help="also the compiled programs")
    parser.add_argument("--row", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = set(options.parts.split(",")) - set(_PARTS)
    if unknown:
        parser.error(f"unknown parts {', '.join(sorted(unknown))}; choose {', '.join(_PARTS)}")
    if options.row:
        print(json.dumps(_measure(**options.row)))
        return
    shared = {"parts": options.parts.split(","), "narrow": options.narrow, "depth": options.depth}
    tilings = [options.tile_size, 0] if options.whole else [options.tile_size]
    print("| result | tiles | peak memory | at rest | seconds |\n|---|---|---|---|---|", flush=True)
    for size in map(int, filter(None, options.sizes.split(","))):
        for tile in tilings:
            found = _row(options.limit, size=size, tile=tile, **shared)
            print(f"| {size} x {size} | {f'{tile} px' if tile else 'none'} | {found} |", flush=True)
    if options.programs:
        print(
            "\n| largest program in tiles | temporary | with arguments and result |\n|---|---|---|"
        )
        for name, (temporary, total) in _programs(options.tile_size, **shared).items():
            print(f"| {name} | {temporary / 1e6:.0f} MB | {total / 1e6:.0f} MB |", flush=True)
    print(
        f"\n{options.parts}; widths / {options.narrow}, denoiser of {options.depth} blocks; "
        f"{_machine()}, {datetime.date.today().isoformat()}"
    )


def _row(limit: float, **row) -> str:
    command = [sys.executable, __file__, "--row", json.dumps(row)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"more than {limit:.0f} seconds | |"
    if run.returncode:
        reason = (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1]
        return f"failed: {reason[:80]} | |"
    found = json.loads(run.stdout.splitlines()[-1])
    peak, rest = (f"{found[name] / 1e9:.2f} GB" for name in ("peak", "rest"))
    return f"{peak} | {rest} | {found['seconds']:.0f}"


def _measure(size: int, tile: int, parts: list[str], narrow: int, depth: int) -> dict:
    """Bytes and seconds of one picture, the compilation included."""
    import jax
    import numpy as np

    from vosr_jax.diffusion.sampler import SamplerSettings
    from vosr_jax.restoration.tiled.latent import plan_tiles

    model = _model(narrow, depth)
    rng = np.random.default_rng(0)
    side = size // model.autoencoder.downscale
    latent = rng.normal(size=(1, side, side, 4)).astype(np.float32)
    picture = rng.uniform(-1, 1, (1, size, size, 3)).astype(np.float32)
    rest = _peak()
    started = time.monotonic()
    with jax.default_matmul_precision("highest"):
        if "encoder" in parts:
            jax.block_until_ready(model.encode(picture, None, tile))
        if "denoiser" in parts:
            grid = plan_tiles(
                (side, side), tile, min(64, tile // 2), model.autoencoder.downscale, 2
            )
            sampler = SamplerSettings(steps=1, guidance_scale=1.0)
            jax.block_until_ready(model.sample(latent, latent, None, sampler, grid))
        if "decoder" in parts:
            jax.block_until_ready(model.decode(latent, tile))
    return {"peak": _peak(), "rest": rest, "seconds": time.monotonic() - started}


def _peak() -> int:
    import jax

    statistics = jax.devices()[0].memory_stats() or {}
    return statistics.get("peak_bytes_in_use", peak_memory())


def _programs(tile: int, parts: list[str], narrow: int, depth: int) -> dict:
    """Part to (temporary, all) bytes of its largest program, as the compiler plans them."""
    from unittest import mock

    import jax
    import jax.numpy as jnp
    import numpy as np
    from flax import nnx

    from vosr_jax.restoration.tiled import autoencoder as tiled_autoencoder
    from vosr_jax.restoration.tiled import streaming

    model = _model(narrow, depth)
    largest: dict[str, tuple[int, int]] = {}

    def weigh(name: str, program, *arguments) -> None:
        plan = program.lower(*arguments).compile().memory_analysis()
        temporary = plan.temp_size_in_bytes
        total = temporary + plan.argument_size_in_bytes + plan.output_size_in_bytes
        largest[name] = max(largest.get(name, (0, 0)), (temporary, total), key=lambda two: two[1])

    size, downscale = 2 * tile, model.autoencoder.downscale
    inputs = {"encoder": (size, size, 3), "decoder": (size // downscale, size // downscale, 4)}
    runs = {
        "encoder": lambda x: tiled_autoencoder.encode_tiled(model.autoencoder, x, None, tile),
        "decoder": lambda x: tiled_autoencoder.decode_tiled(model.autoencoder, x, tile),
    }
    compute = streaming._compute
    for part in (part for part in runs if part in parts):
        # The programs are compiled, not run: their results are of no interest here.
        def planned(static, state, *arguments, part=part):
            weigh(part, compute, static, state, *arguments)
            shapes = jax.eval_shape(lambda *a: compute(static, *a), state, *arguments)
            return jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)

        with (
            mock.patch.object(streaming, "_compute", planned),
            mock.patch.object(streaming, "_tiles", lambda n, side: [(0, (0, min(side, n)))]),
            mock.patch.object(tiled_autoencoder, "streamed_attention", lambda *_: None),
        ):
            runs[part](np.zeros((1, *inputs[part]), np.float32))
    if {"encoder", "decoder"} & set(parts):
        chunk = streaming.CHUNK
        width = 512 // narrow
        rows, one = jnp.zeros((chunk, width)), jnp.zeros((chunk, 1))
        arguments = ((one, one, rows), rows, rows, rows, np.ones(chunk, bool))
        weigh("middle attention", streaming._absorb, *arguments)
    if "denoiser" in parts:
        graph, state = nnx.split(model.denoiser)
        latent = jnp.zeros((1, tile // downscale, tile // downscale, 4))
        denoise = jax.jit(lambda s, z, t: nnx.merge(graph, s)(z, z, t))
        weigh("denoiser", denoise, state, latent, jnp.ones(1))
    return largest


def _machine() -> str:
    import jax

    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores of {names[0] if names else platform.machine()}"


def _model(narrow: int, depth: int):
    from flax import nnx

    from vosr_jax.models.autoencoders.sd import SDAutoencoder, SDCoderSettings, SDSettings
    from vosr_jax.models.lightning_dit.network import LightningDiT, LightningDiTSettings
    from vosr_jax.restoration.model import RestorationModel

    groups = max(32 // narrow, 1)
    encoder = SDCoderSettings(tuple(c // narrow for c in (128, 256, 512, 512)), groups=groups)
    light = SDCoderSettings(
        tuple(c // narrow for c in (64, 128, 256, 256)), groups=groups, quant=False
    )
    settings = LightningDiTSettings(
        width=1024 // narrow, heads=16 // narrow, depth=depth, token_width=None
    )
    return RestorationModel(
        name="random",
        denoiser=LightningDiT(settings, rngs=nnx.Rngs(0)),
        autoencoder=SDAutoencoder(SDSettings(encoder, light), rngs=nnx.Rngs(0)),
        encoder=None,
    )


if __name__ == "__main__":
    main()
