"""VOSR 0.5B: SD 2.1 latents, DINOv2 ViT-B/14 tokens, multi-step.

configs/vosr_0_5b.py:VARIANT picks one of

    256       the paper's first stage: 256 px, 400,000 steps of 1024 pairs (the default)
    512       its second stage: 512 px, 400,000 steps of 256; set train.init_from to the first
    released  the released configuration: 512 px alone, 400,000 steps of 8
    fast      the second stage with what is faster and may change pictures slightly: the
              autoencoder's products and activations in bfloat16 (docs/scaling.md)

The learning rate, 5e-5, is the released configuration's; the paper's stages are run with it too.
"""

import dataclasses

from vosr_jax import config as c

STAGES = {"256": (256, 1024), "512": (512, 256), "released": (512, 8), "fast": (512, 256)}


def multi_step(variant: str) -> c.Config:
    """The whole experiment; every hyperparameter that is not named has its official default."""
    if variant not in STAGES:
        raise ValueError(f"the variants are {', '.join(STAGES)}, not {variant!r}")
    crop_size, batch_size = STAGES[variant]
    config = c.Config(
        model=c.ModelConfig(width=1024, depth=28, heads=16, swiglu_multiple=128),
        autoencoder=c.AutoencoderConfig(kind="sd2", path="preset/ckpts/stable-diffusion-2-1-base"),
        encoder=c.EncoderConfig(
            kind="dinov2b",
            path="preset/ckpts/torch_cache/checkpoints/dinov2_vitb14_pretrain.pth",
            block=8,
        ),
        data=c.DataConfig(sources="data/train", crop_size=crop_size),
        optimizer=c.OptimizerConfig(learning_rate=5e-5),
        mesh=c.MeshConfig(data=-1, fsdp=0),
        train=c.TrainConfig(total_steps=400_000, batch_size=batch_size),
    )
    return faster(config) if variant == "fast" else config


def faster(config: c.Config) -> c.Config:
    """What a TPU or a GPU does sooner, at a price that docs/scaling.md states."""
    replace = dataclasses.replace
    short = replace(config.autoencoder, precision="bfloat16", activations="bfloat16")
    return replace(config, autoencoder=short)


def get_config(variant: str = "256"):
    """The experiment of a variant."""
    return c.get_config_dict(multi_step(variant))
