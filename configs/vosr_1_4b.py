"""VOSR 1.4B: Qwen-Image latents, DINOv2 ViT-L/14 tokens, multi-step.

configs/vosr_1_4b.py:VARIANT picks one of

    256       the paper's first stage: 256 px, 400,000 steps of 1024 pairs (the default)
    512       its second stage: 512 px, 400,000 steps of 256; set train.init_from to the first
    released  the released configuration: 512 px alone, 400,000 steps of 8

The learning rate, 5e-5, is the released configuration's; the paper's stages are run with it too.
"""

from vosr_jax import config as c

STAGES = {"256": (256, 1024), "512": (512, 256), "released": (512, 8)}


def get_config(variant: str = "256"):
    """The whole experiment; every hyperparameter that is not named has its official default."""
    if variant not in STAGES:
        raise ValueError(
            f"configs/vosr_1_4b.py has the variants {', '.join(STAGES)}, not {variant!r}"
        )
    crop_size, batch_size = STAGES[variant]
    return c.get_config_dict(
        c.Config(
            model=c.ModelConfig(width=1536, depth=36, heads=24),
            autoencoder=c.AutoencoderConfig(kind="qwen", path="preset/ckpts/Qwen-Image-vae-2d"),
            encoder=c.EncoderConfig(
                kind="dinov2l",
                path="preset/ckpts/torch_cache/checkpoints/dinov2_vitl14_pretrain.pth",
                block=17,
            ),
            data=c.DataConfig(sources="data/train", crop_size=crop_size),
            optimizer=c.OptimizerConfig(learning_rate=5e-5),
            mesh=c.MeshConfig(data=-1, fsdp=0),
            train=c.TrainConfig(total_steps=400_000, batch_size=batch_size),
        )
    )
