"""What a model is, in a few lines for people."""

import math
from typing import Any

import jax
from flax import nnx

from vosr_jax.restoration.model import RestorationModel


def describe(model: RestorationModel) -> str:
    """Parts, sizes and the settings that are used where none are given."""
    settings, sampler = model.denoiser.settings, model.sampler
    kind = "one-step (takes the interval's end)" if sampler.r_input else "multi-step"
    lines = [
        ("model", f"{model.name}, {kind}"),
        (
            "denoiser",
            f"{_millions(model.denoiser)}, {settings.depth} blocks of width "
            f"{settings.width}, {settings.heads} heads, tokens of {model.multiple} px",
        ),
        (
            "autoencoder",
            f"{type(model.autoencoder).__name__}, {_millions(model.autoencoder)}, "
            f"{model.autoencoder.latent_channels} channels, "
            f"{model.autoencoder.downscale} times smaller",
        ),
        (
            "visual encoder",
            "none"
            if model.encoder is None
            else f"{type(model.encoder).__name__}, {_millions(model.encoder)}, sees "
            f"{model.token_size} px, tokens after block {model.token_block}",
        ),
        ("predicts", f"{model.parameterization.prediction} of {model.parameterization.endpoint}"),
        ("steps", f"{sampler.steps}, {sampler.schedule}"),
        (
            "guidance",
            "learned"
            if sampler.r_input
            else f"scale {sampler.guidance_scale:g}, weak strength {sampler.weak_strength:g}",
        ),
        ("colour fix", model.colour_fix),
        *(("note", note) for note in model.notes),
    ]
    return "\n".join(f"{title + ':':<16}{text}" for title, text in lines)


def _millions(network: Any) -> str:
    shapes = jax.tree.leaves(nnx.state(network, nnx.Param))
    count = sum(math.prod(leaf.shape) for leaf in shapes)
    return f"{count / 1e6:.1f}M parameters" if count else "no parameters"
