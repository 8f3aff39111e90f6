"""The smallest VOSR that an ablation can tell something with: minutes on one CPU core.

As configs/nano.py, a third of its parameters, on crops of 64 px, and with visual tokens by
cross-attention: 16 of VGG16's conv4_3, which sees the picture at 32 px, twice the side of what
the degradation leaves of it. Every arm of `configs/sweeps/encoder_guidance.py` has this network,
its data, its order and its steps.

configs/ablations/nano.py:VARIANT picks one of

    (none)  VGG16's tokens
    dinov2  DINOv2's in their place; set encoder.path, and encoder.kind where it is no ViT-B
"""

import dataclasses

from vosr_jax import config as c
from vosr_jax.diffusion.guidance import GuidanceSettings


def nano() -> c.Config:
    """The arm that the others are compared with: restoration guidance, VGG16's own tokens."""
    return c.Config(
        seed=0,
        model=c.ModelConfig(
            patch_size=4,
            width=128,
            depth=3,
            heads=4,
            token_hidden_ratio=1,
            rescale_positions=False,
            detail_width=16,
            remat="none",
        ),
        autoencoder=c.AutoencoderConfig(kind="space_to_depth", downscale=2),
        encoder=c.EncoderConfig(kind="vgg16", size=32, block=9),
        objective=c.ObjectiveConfig(
            time_distribution="lognorm",
            time_mu=0.8,
            time_sigma=1.2,
            endpoint="residual",
            prediction="endpoint",
            smallest_t=0.2,
            residual_scale=0.15,
        ),
        guidance=GuidanceSettings(condition_strength=(9.0, 1.0), scale=1.0),
        data=c.DataConfig(crop_size=64, flip=True, workers=1),
        optimizer=c.OptimizerConfig(
            name="muon",
            learning_rate=1e-3,
            muon_learning_rate=0.015,
            schedule="cosine",
            warmup_steps=None,
            warmup_share=50 / 500,
            beta2=0.99,
        ),
        ema=c.EmaConfig(decay=0.99, ramp=True),
        train=c.TrainConfig(
            total_steps=500,
            batch_size=8,
            log_every=50,
            checkpoint_every=250,
            keep_checkpoints=1,
            sample_every=0,
            eval_every=0,
        ),
        sampling=c.SamplingConfig(steps=6, colour_fix="none"),
        eval=c.EvalConfig(
            crop_size=64, pictures=80, guidance_scales=(-0.5, 0.0, 0.5, 0.75, 1.0, 1.25, 1.5)
        ),
    )


def get_config(variant: str = ""):
    """The whole experiment."""
    if variant not in ("", "dinov2"):
        raise ValueError(f"configs/ablations/nano.py has the variant dinov2, not {variant!r}")
    config = nano()
    if variant:
        encoder = c.EncoderConfig(kind="dinov2b", size=448, block=8)
        config = dataclasses.replace(config, encoder=encoder)
    return c.get_config_dict(config)
