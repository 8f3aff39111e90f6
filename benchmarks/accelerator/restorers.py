"""Complete models of the released sizes with random weights, and tiny ones of the same make."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from vosr_jax.diffusion.sampler import SamplerSettings
from vosr_jax.models.autoencoders.qwen import QwenAutoencoder, QwenSettings
from vosr_jax.models.autoencoders.sd import SDAutoencoder, SDCoderSettings, SDSettings
from vosr_jax.models.dinov2.network import DINOv2, DINOv2Settings
from vosr_jax.models.lightning_dit.network import LightningDiT, LightningDiTSettings
from vosr_jax.restoration.model import RestorationModel

STEPS = 25
# name: (size, one step)
KINDS = {
    "0.5B, one step": ("0.5B", True),
    f"0.5B, {STEPS} guided steps": ("0.5B", False),
    "1.4B, one step": ("1.4B", True),
}
_TINY_CODER = SDCoderSettings(channels=(8, 8, 8, 8), layers_per_block=1, groups=4)


def _built(build: Callable[[], Any]) -> Any:
    return nnx.jit(build)()


def _sampler(one_step: bool, steps: int) -> SamplerSettings:
    if one_step:
        return SamplerSettings(1, r_input=True)
    return SamplerSettings(steps, guidance_scale=0.5)


def tiny(kind: str) -> RestorationModel:
    """A model of some thousand parameters, the same for every size."""
    _, one_step = KINDS[kind]
    denoiser = LightningDiTSettings(
        latent_size=8, width=32, depth=2, heads=2, token_width=32, r_embedding=one_step
    )
    coders = SDSettings(encoder=_TINY_CODER, decoder=_TINY_CODER)
    encoder = DINOv2Settings(width=32, depth=2, heads=2, ffn_width=64)
    return RestorationModel(
        name=kind,
        denoiser=_built(lambda: LightningDiT(denoiser, rngs=nnx.Rngs(0))),
        autoencoder=_built(lambda: SDAutoencoder(coders, rngs=nnx.Rngs(1))),
        encoder=_built(lambda: DINOv2(encoder, rngs=nnx.Rngs(2))),
        token_size=56,
        token_block=1,
        sampler=_sampler(one_step, 2),
        guided=not one_step,
    )


def full(kind: str) -> RestorationModel:
    """A model of the released size."""
    size, one_step = KINDS[kind]
    if size == "0.5B":
        denoiser = LightningDiTSettings.vosr_0_5b(r_embedding=one_step)
        encoder, block = DINOv2Settings.vit_b(), 8

        def autoencoder() -> Any:
            return SDAutoencoder(SDSettings.sd21_light(), rngs=nnx.Rngs(1))
    else:
        denoiser = LightningDiTSettings.vosr_1_4b(r_embedding=one_step)
        encoder, block = DINOv2Settings.vit_l(), 17

        def autoencoder() -> Any:
            return QwenAutoencoder(QwenSettings(), rngs=nnx.Rngs(1))

    encoder = dataclasses.replace(encoder, kept_blocks=block + 1)
    return RestorationModel(
        name=kind,
        denoiser=_built(lambda: LightningDiT(denoiser, rngs=nnx.Rngs(0))),
        autoencoder=_built(autoencoder),
        encoder=_built(lambda: DINOv2(encoder, rngs=nnx.Rngs(2))),
        token_block=block,
        sampler=_sampler(one_step, STEPS),
        guided=not one_step,
    )


class Pictures:
    """A batch through a model, in one precision, whole and apart.

    Args:
      model: whose networks run.
      precision: of denoiser and autoencoder, "float16" or "bfloat16".
      rows: pictures at once.
      side: of the results, in pixels.
    """

    def __init__(self, model: RestorationModel, precision: str, rows: int, side: int):
        self._model = dataclasses.replace(
            model, precision=precision, autoencoder_precision=precision
        )
        keys = jax.random.split(jax.random.key(3), 2)
        self._lq = jax.random.uniform(keys[0], (rows, side, side, 3), minval=-1)
        self._latent = self._model.encode(self._lq, None)
        self._noise = jax.random.normal(keys[1], np.shape(self._latent))
        self._tokens = self._model.visual_tokens(self._lq)

    def parts(self) -> dict[str, Callable[[], Any]]:
        """What is timed apart."""
        return {
            "encode": lambda: self._model.encode(self._lq, None),
            "tokens": lambda: self._model.visual_tokens(self._lq),
            "denoise": lambda: self._denoised(self._latent, self._tokens),
            "decode": lambda: self._model.decode(self._latent),
        }

    def whole(self) -> Any:
        """From the enlarged picture to the restored one."""
        latent, tokens = self._model.encode(self._lq, None), self._model.visual_tokens(self._lq)
        return self._model.decode(self._denoised(latent, tokens))

    def _denoised(self, latent: Any, tokens: Any) -> Any:
        return self._model.sample(latent, self._noise, tokens, self._model.sampler)
