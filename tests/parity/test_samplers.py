"""Samplers against the official ones, from recorded noise."""

import jax
import jax.numpy as jnp
import pytest

from tests.parity import goldens
from tests.parity.test_objectives import network
from vosr_jax.diffusion.denoiser import CachedDenoiser
from vosr_jax.diffusion.sampler import SamplerSettings, sample


def sampler_cases() -> list[str]:
    path = goldens.ROOT / "samplers" / "cases.json"
    return list(goldens.read_json(path)) if path.exists() else ["missing"]


@pytest.mark.parametrize("case", sampler_cases())
def test_sampled_latent_is_the_official_one(case: str):
    folder = goldens.folder("samplers")
    arrays = goldens.arrays(folder / "samplers.npz")
    recorded = goldens.read_json(folder / "cases.json")[case]
    one_step = "guidance_scale" not in recorded
    interval = tuple(recorded.pop("guidance_interval", (0.0, 1.0)))
    settings = SamplerSettings(**recorded, guidance_interval=interval, r_input=one_step)
    model = network("onestep_model" if one_step else "multistep_model", r_embedding=one_step)
    latents = tuple(
        jnp.asarray(goldens.nhwc(arrays[key])) for key in ("lq_latent", f"{case}/noise")
    )
    tokens = jnp.asarray(arrays["visual_tokens"])
    for network_form in (model, CachedDenoiser(model)):
        latent = jax.jit(
            lambda lq, noise, tokens, form=network_form: sample(
                form, lq, noise, settings, visual_tokens=tokens
            )
        )(*latents, tokens)
        goldens.check(f"samplers/{case}", latent, goldens.nhwc(arrays[f"{case}/out"]), 2e-4)
