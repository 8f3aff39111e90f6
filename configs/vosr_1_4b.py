"""VOSR 1.4B: Qwen-Image latents, DINOv2 ViT-L/14 tokens, multi-step.

configs/vosr_1_4b.py:VARIANT picks one of those of configs/vosr_0_5b.py, from which it differs in
its networks alone.
"""

import dataclasses

from vosr_jax import config as c


def larger(config: c.Config) -> c.Config:
    """The 1.4B's networks in the place of the 0.5B's."""
    replace = dataclasses.replace
    return replace(
        config,
        model=replace(
            config.model,
            width=1536,
            depth=36,
            heads=24,
            swiglu_multiple=c.ModelConfig.swiglu_multiple,
        ),
        autoencoder=replace(config.autoencoder, kind="qwen", path="preset/ckpts/Qwen-Image-vae-2d"),
        encoder=replace(
            config.encoder,
            kind="dinov2l",
            path="preset/ckpts/torch_cache/checkpoints/dinov2_vitl14_pretrain.pth",
            block=17,
        ),
    )


def get_config(variant: str = "256"):
    """The experiment of a variant."""
    return c.get_config_dict(larger(c.parent(__file__, "vosr_0_5b").multi_step(variant)))
