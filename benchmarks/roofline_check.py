"""How far the plan's roofline is from measured time, on programs that this machine can run.

    python benchmarks/roofline_check.py [--rounds 5]

This machine's peak and bandwidth are measured first, by a large float32 product and by sums over
an array of the size of an activation. Then the same reading that `vosr plan` makes of a TPU program
(`planning/roofline.py`) bounds the time of four programs of this machine's compiler, and each is
run. A bound is right if no program is faster; it is close if none is much slower.
"""

import argparse
import datetime
import os
import time
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from vosr_jax.chips import Chip
from vosr_jax.models.autoencoders.sd import SDAutoencoder, SDSettings
from vosr_jax.models.dinov2.network import DINOv2, DINOv2Settings, visual_tokens
from vosr_jax.models.lightning_dit.network import LightningDiT
from vosr_jax.models.lightning_dit.settings import LightningDiTSettings
from vosr_jax.planning.hlo import parse
from vosr_jax.planning.plan import kernel_flops
from vosr_jax.planning.roofline import least_seconds, work_of


def fastest(call: Callable, rounds: int) -> float:
    """Seconds of the fastest of several calls, after one that warms up."""
    jax.block_until_ready(call())
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def this_machine(rounds: int) -> Chip:
    """This machine as a chip: measured float32 peak and bandwidth, nothing else."""
    size = 2048
    square = jnp.ones((size, size))
    product = jax.jit(jnp.dot)
    flops = 2 * size**3 / fastest(lambda: product(square, square), rounds)
    passes = 50
    # As large as an activation, since these stay in the processor's cache.
    activation = jnp.ones(1 << 20)
    over = jax.jit(lambda x: jax.lax.fori_loop(0, passes, lambda _, x: x * 0.5 + 1.0, x))
    bandwidth = 2 * passes * activation.nbytes / fastest(lambda: over(activation), rounds)
    return Chip("this machine", flops, 0, bandwidth, 0.0, 1, 1, os.cpu_count() or 1, 0.0)


def programs() -> Iterator[tuple[str, Callable, tuple]]:
    """(name, function, arguments) of parts of the 0.5B's step at released widths."""
    settings = LightningDiTSettings.vosr_0_5b(depth=2)
    network = nnx.jit(lambda: LightningDiT(settings, rngs=nnx.Rngs(0)))()
    graph, weights = nnx.split(network)
    latent = jnp.ones((1, 64, 64, 4))
    tokens, times = jnp.ones((1, 1024, 768)), jnp.full((1,), 0.5)

    def denoise(weights, latent):
        return nnx.merge(graph, weights)(latent, latent, times, tokens)

    yield "two blocks of the denoiser, forward", denoise, (weights, latent)

    def loss(weights, latent):
        return jnp.mean(denoise(weights, latent) ** 2)

    yield "the same with its gradient", jax.grad(loss), (weights, latent)

    autoencoder = nnx.jit(lambda: SDAutoencoder(SDSettings(decoder=None), rngs=nnx.Rngs(0)))()
    yield (
        "SD 2.1's encoder, 256 px",
        lambda m, x: m.moments(x),
        (
            autoencoder,
            jnp.zeros((1, 256, 256, 3)),
        ),
    )

    encoder = nnx.jit(lambda: DINOv2(DINOv2Settings.vit_b(), rngs=nnx.Rngs(0)))()
    yield (
        "DINOv2 ViT-B, 224 px",
        lambda m, x: visual_tokens(m, x, 224, 11),
        (
            encoder,
            jnp.zeros((1, 224, 224, 3)),
        ),
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    chip = this_machine(options.rounds)
    print(
        f"{datetime.date.today()}, {len(os.sched_getaffinity(0))} cores, jax {jax.__version__}: "
        f"{chip.flops / 1e9:.0f} GFLOP/s, {chip.memory_bandwidth / 1e9:.1f} GB/s\n"
    )
    print("| program | arithmetic, s | bound, s | measured, s | measured / bound |")
    print("|---|---|---|---|---|")
    for name, function, arguments in programs():
        compiled = jax.jit(function).lower(*arguments).compile()
        # This machine multiplies float32 in one pass, where a TPU needs six.
        text = compiled.as_text().replace("operand_precision={highest,highest}", "")
        work = work_of(parse(text), kernel_flops)
        arithmetic = sum(one.times * one.flops for one in work) / chip.flops
        bound = least_seconds(work, chip)
        seconds = fastest(partial(compiled, *arguments), options.rounds)
        print(
            f"| {name} | {arithmetic:.3f} | {bound:.3f} | {seconds:.3f} | {seconds / bound:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
