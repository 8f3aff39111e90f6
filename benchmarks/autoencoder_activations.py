"""How far latents move where the autoencoder's activations are short.

    python benchmarks/autoencoder_activations.py [--goldens DIR] [--side 128]

Two sources: the autoencoders of the goldens with their own pictures, and the encoders of the
releases' widths with random weights on a photograph of the demo. Printed are root mean squares
over that of the exact latent: of the difference from float32 where products are bfloat16, where
activations are too, and of the posterior's own noise, which training draws anew in every step.
Random weights have a wide posterior; the released ones are not at hand.
"""

import argparse
import datetime
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from vosr_jax.models.autoencoders import with_activations
from vosr_jax.models.autoencoders.qwen import QwenAutoencoder, QwenSettings
from vosr_jax.models.autoencoders.sd import SDAutoencoder, SDSettings
from vosr_jax.models.layers import products_in
from vosr_jax.weights import load_autoencoder

ROOT = Path(__file__).parents[1]


def of_goldens(folder: Path) -> Iterator[tuple[str, Any, np.ndarray]]:
    """(name, autoencoder, picture [B, H, W, 3]) of every folder that has a picture."""
    for arrays in sorted(folder.glob("autoencoders/*/io.npz")):
        values = np.load(arrays)
        if "image" in values:
            model = load_autoencoder(arrays.parent, parts=("encoder",))[0]
            yield f"goldens, {arrays.parent.name}", model, values["image"].transpose(0, 2, 3, 1)


def of_releases(side: int) -> Iterator[tuple[str, Any, np.ndarray]]:
    """The same for encoders of full width with random weights."""
    photo = Image.open(ROOT / "assets" / "demo" / "coffee.png").convert("RGB")
    picture = np.asarray(photo.resize((side, side)), np.float32)[None] / 127.5 - 1
    makers = {
        "SD 2.1's widths": lambda: SDAutoencoder(SDSettings(decoder=None), rngs=nnx.Rngs(0)),
        "Qwen-Image's widths": lambda: QwenAutoencoder(
            QwenSettings(parts=("encoder",)), rngs=nnx.Rngs(0)
        ),
    }
    for name, make in makers.items():
        yield name, nnx.jit(make)(), picture


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--goldens", type=Path, default=ROOT / "tests" / "goldens")
    parser.add_argument("--side", type=int, default=128)
    options = parser.parse_args()
    cores, today = len(os.sched_getaffinity(0)), datetime.date.today()
    print(f"{today}, {cores} cores, jax {jax.__version__}, {jax.default_backend()}\n")
    print("| encoder | products bfloat16 | activations bfloat16 | the posterior's noise |")
    print("|---|---|---|---|")
    for name, model, picture in (*of_goldens(options.goldens), *of_releases(options.side)):
        moments = jax.jit(lambda m, x: m.moments(x))
        mean, std = (np.asarray(x, np.float64) for x in moments(model, jnp.asarray(picture)))
        size = np.sqrt(np.mean(mean**2))
        shares = []
        for other in (products_in(model, jnp.bfloat16), with_activations(model, jnp.bfloat16)):
            moved = np.asarray(moments(other, jnp.asarray(picture))[0], np.float64) - mean
            shares.append(np.sqrt(np.mean(moved**2)) / size)
        shares.append(np.sqrt(np.mean(std**2)) / size)
        print(f"| {name} | " + " | ".join(f"{share:.5f}" for share in shares) + " |", flush=True)


if __name__ == "__main__":
    main()
