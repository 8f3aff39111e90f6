"""A small restoration model with random weights for the tests."""

import jax
import jax.numpy as jnp
from flax import nnx

from vosr_jax.diffusion.parameterization import Parameterization
from vosr_jax.diffusion.sampler import SamplerSettings
from vosr_jax.models.autoencoders.space_to_depth import SpaceToDepth, SpaceToDepthSettings
from vosr_jax.models.lightning_dit.network import LightningDiT, LightningDiTSettings
from vosr_jax.restoration.model import RestorationModel


def tiny_model(**changes) -> RestorationModel:
    """Pixels in squares of 4 (2x2 latent pixels a token) and two blocks."""
    autoencoder = changes.get("autoencoder") or SpaceToDepth(SpaceToDepthSettings(downscale=2))
    settings = LightningDiTSettings(
        latent_channels=autoencoder.latent_channels,
        latent_size=16,
        patch_size=2,
        width=32,
        depth=2,
        heads=2,
        token_width=None,
        r_embedding=changes.get("sampler", SamplerSettings()).r_input,
    )
    denoiser = LightningDiT(settings, rngs=nnx.Rngs(0))
    # The last layer starts at zero, which would hide everything before it.
    kernel = denoiser.final.linear.kernel
    kernel[...] = 0.05 * jax.random.normal(jax.random.key(1), kernel[...].shape, jnp.float32)
    options = {
        "guided": not settings.r_embedding,
        "name": "tiny",
        "denoiser": denoiser,
        "autoencoder": autoencoder,
        "encoder": None,
        "sampler": SamplerSettings(steps=2, guidance_scale=0.5),
        "parameterization": Parameterization(endpoint="residual", prediction="endpoint"),
    }
    return RestorationModel(**(options | changes))
