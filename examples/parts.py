"""Use the parts without Upscaler or train.py: restore one photo, then take one training gradient.

python examples/parts.py photo.jpg restored.png
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from vosr_jax.diffusion.objectives import loss_of
from vosr_jax.diffusion.sampler import SamplerSettings, sample
from vosr_jax.models import autoencoders
from vosr_jax.restoration.colour import fix_colour
from vosr_jax.weights.opening import config_autoencoder, open_denoiser
from vosr_jax.weights.resolve import resolve

source, result = sys.argv[1:]
opened = open_denoiser(resolve("nano-onestep"))
network, config, form = opened.network.network(), opened.config, opened.config.parameterization()
autoencoder = config_autoencoder(config).network()

# Restore: pixels to latent, noise to latent, latent to pixels. Sides are multiples of 16 here.
photo = Image.open(source).convert("RGB")
size = (photo.width // 4 * 16, photo.height // 4 * 16)
lq = np.asarray(photo.resize(size, Image.Resampling.BICUBIC), np.float32)[None] / 127.5 - 1
lq_latent = autoencoders.encode(autoencoder, jnp.asarray(lq))
noise = jax.random.normal(jax.random.key(0), lq_latent.shape)
sampler = SamplerSettings.from_guidance(config.guidance, steps=config.sampling.steps)
z = sample(network, lq_latent, noise, sampler, parameterization=form)
decoded = np.asarray(autoencoders.decode(autoencoder, form.to_latent(z, lq_latent))[0])
restored = fix_colour("wavelet", decoded / 2 + 0.5, lq[0] / 2 + 0.5)
Image.fromarray((restored * 255).round().astype(np.uint8)).save(result)

# Train: the gradient of flow matching; the photo's upper left stands for its own truth.
graph, parameters = nnx.split(network)
settings = config.objective_settings()
crop = lq_latent[:, :16, :16]
row = {"index": jnp.zeros((1, 2), jnp.uint32), "step": jnp.zeros((), jnp.int32)}


def loss(state: nnx.State) -> jax.Array:
    """Evaluate the objective on one pair."""

    def velocity(condition, z_t, t, visual_tokens, r):
        output = nnx.merge(graph, state)(condition, z_t, t, visual_tokens, r)
        return form.velocity(output, z_t, t)

    batch = {"hr_latent": crop, "lq_latent": crop, **row}
    return loss_of(settings)(velocity, batch, jax.random.key(0), settings)[0]


value, gradient = jax.value_and_grad(loss)(parameters)
norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))
print(f"loss {float(value):.4f}, gradient's norm {float(norm):.4f}")
