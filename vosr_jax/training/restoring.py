"""A run's averaged network and its frozen nets as one function from pictures to pictures."""

from collections.abc import Callable

import jax
from jax import Array

from vosr_jax.diffusion.denoiser import CachedDenoiser
from vosr_jax.diffusion.sampler import SamplerSettings, build_context, run_steps
from vosr_jax.models import autoencoders
from vosr_jax.models.lora import with_base
from vosr_jax.training.step import Method

Restore = Callable[[dict, dict, Array, Array, Array, Array], Array]


def make_restore(method: Method, sampler: SamplerSettings) -> Restore:
    """How a method's network restores a batch.

    Args:
      method: what was trained.
      sampler: its guidance scale only tells whether there is a weak branch; the scale itself is
        an argument, so that many share a program.

    Returns:
      (EMA, frozen weights, lq [B, H, W, 3] in [-1, 1], hr, noise's key, guidance scale) ->
      restored [B, H, W, 3]. hr is looked at by encoder.tokens_of=hr alone.
    """
    form, frozen = method.objective.parameterization, method.frozen

    def restore(ema: dict, weights: dict, lq: Array, hr: Array, key: Array, scale: Array) -> Array:
        autoencoder = frozen.autoencoder.merge(weights["autoencoder"])
        lq_latent = autoencoders.encode(autoencoder, lq)
        z = jax.random.normal(key, lq_latent.shape)
        denoiser = CachedDenoiser(method.network.merge(with_base(ema, weights)), form)
        tokens = frozen.tokens(weights, lq, hr)
        context = None if tokens is None else denoiser.precompute(tokens)
        shared = build_context(denoiser, sampler)._replace(guidance_scale=scale)
        for guided, first, last in sampler.runs():
            z = run_steps(denoiser, shared, context, lq_latent, z, first, last, guided=guided)
        return autoencoders.decode(autoencoder, form.to_latent(z, lq_latent))

    return restore
