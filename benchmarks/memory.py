"""Peak memory of restoring pictures of several sizes, whole and in tiles.

    python benchmarks/memory.py [--sizes 512,1024,2048,4096] [--narrow 4] [--depth 1] [--whole]

Random weights in the sizes of the released 0.5B model: Stable Diffusion's encoder, the light
decoder, a denoiser of --depth blocks. --narrow divides every width, so that large pictures are
feasible on a small machine. Each row is a process of its own: on CPU its memory is the peak
resident set, on an accelerator the peak that the device reports; the weights, the compiler and
the libraries are in it. One step without guidance, since steps change no memory.
"""

import argparse
import datetime
import json
import platform
import resource
import subprocess
import sys
import time


def main() -> None:
    """Print the table, or run one row of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="512,1024,2048,4096", help="sides of square results")
    parser.add_argument("--tile-size", type=int, default=512)
    parser.add_argument("--narrow", type=int, default=1, help="divide every width by this")
    parser.add_argument("--depth", type=int, default=1, help="blocks of the denoiser")
    parser.add_argument("--whole", action="store_true", help="also rows without tiles")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        return _row(*map(int, options.row.split(",")))
    tilings = [options.tile_size, 0] if options.whole else [options.tile_size]
    print("| result | tiles | peak memory | seconds |\n|---|---|---|---|", flush=True)
    device = ""
    for size in map(int, options.sizes.split(",")):
        for tile in tilings:
            row = f"{size},{tile},{options.narrow},{options.depth}"
            run = subprocess.run(
                [sys.executable, __file__, "--row", row], capture_output=True, text=True
            )
            tiles = f"{tile} px" if tile else "none"
            if run.returncode:
                print(f"| {size} x {size} | {tiles} | failed | |", flush=True)
                continue
            found = json.loads(run.stdout.splitlines()[-1])
            device = found["device"]
            peak = f"{found['bytes'] / 1e9:.2f} GB"
            print(f"| {size} x {size} | {tiles} | {peak} | {found['seconds']:.0f} |", flush=True)
    today = datetime.date.today().isoformat()
    print(f"\nwidths / {options.narrow}, {options.depth} blocks; {device}, "
          f"{platform.machine()}, {today}")  # fmt: skip


def _row(size: int, tile: int, narrow: int, depth: int) -> None:
    import jax
    import numpy as np

    from vosr_jax import Upscaler

    upscaler = Upscaler(_model(narrow, depth))
    picture = np.random.default_rng(0).integers(0, 256, (size // 4, size // 4, 3), np.uint8)
    started = time.monotonic()
    upscaler(picture, steps=1, guidance_scale=1.0, tile_size=tile, vae_tile_size=tile)
    seconds = time.monotonic() - started
    device = jax.devices()[0]
    statistics = device.memory_stats() or {}
    peak = statistics.get("peak_bytes_in_use")
    if peak is None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"bytes": peak, "seconds": seconds, "device": device.device_kind}))


def _model(narrow: int, depth: int):
    from flax import nnx

    from vosr_jax.models.autoencoders.sd import SDAutoencoder, SDCoderSettings, SDSettings
    from vosr_jax.models.lightning_dit import LightningDiT, LightningDiTSettings
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
