"""Run by test_mean_flow.py in a process of its own, where float32 means float64; prints JSON.

The network casts to float32 in many places, so its arithmetic can be made exact enough for finite
differences only before it is imported.
"""

import json
import sys

import jax
import jax.numpy as jnp

jax.config.update("jax_enable_x64", True)
jnp.float32 = jnp.float64  # type: ignore[misc]

import numpy as np  # noqa: E402
from flax import nnx  # noqa: E402

from vosr_jax.diffusion.denoiser import CachedDenoiser  # noqa: E402
from vosr_jax.diffusion.guidance import GuidanceSettings  # noqa: E402
from vosr_jax.diffusion.noise import index_words  # noqa: E402
from vosr_jax.diffusion.objectives import mean_flow  # noqa: E402
from vosr_jax.diffusion.objectives.distillation import draw, prepare  # noqa: E402
from vosr_jax.diffusion.parameterization import Parameterization  # noqa: E402
from vosr_jax.diffusion.timesteps import IntervalSettings  # noqa: E402
from vosr_jax.models.attention.dispatch import plain_attention  # noqa: E402
from vosr_jax.models.lightning_dit.network import LightningDiT, LightningDiTSettings  # noqa: E402

STEP = 1e-5


def main() -> None:
    settings = LightningDiTSettings(
        latent_channels=2,
        latent_size=4,
        width=16,
        depth=2,
        heads=2,
        token_width=6,
        r_embedding=True,
    )
    model = LightningDiT(settings, rngs=nnx.Rngs(0), attention=plain_attention, remat="full")
    rng = np.random.default_rng(0)
    graph, state = nnx.split(model)
    state = jax.tree.map(lambda x: jnp.asarray(x + rng.normal(0, 0.2, x.shape), jnp.float64), state)
    denoiser = CachedDenoiser(nnx.merge(graph, state), Parameterization())
    batch = {
        "hr_latent": jnp.asarray(rng.normal(size=(4, 4, 4, 2))),
        "lq_latent": jnp.asarray(rng.normal(size=(4, 4, 4, 2))),
        "visual_tokens": jnp.asarray(rng.normal(size=(4, 3, 6))),
        "index": jnp.asarray(index_words(np.arange(4))),
    }
    own = mean_flow.MeanFlowSettings(
        interval=IntervalSettings(end="pair"), guidance=GuidanceSettings(scale=0.5)
    )
    key = jax.random.key(0)
    sample = prepare(batch, key, draw(key, batch, own), own)
    velocity = jnp.asarray(rng.normal(size=sample.z_t.shape))
    context = denoiser.precompute(sample.tokens)
    average, change = mean_flow.average_and_change(denoiser, velocity, context, sample)

    def at(h: float) -> jax.Array:
        z, t = sample.z_t + h * velocity, sample.t + h
        return denoiser(sample.condition, z, t, sample.tokens, sample.r)

    difference = (at(STEP) - at(-STEP)) / (2 * STEP)
    json.dump(
        {
            "dtype": str(change.dtype),
            "average": float(jnp.abs(average - at(0.0)).max()),
            "change": float(jnp.abs(change - difference).max()),
            "size": float(jnp.abs(change).max()),
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
