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


def small() -> c.Config:
    """The arm that the others are compared with: restoration guidance, VGG16's own tokens."""
    replace = dataclasses.replace
    config = c.parent(__file__, "../nano").nano()
    return replace(
        config,
        seed=0,
        model=replace(
            config.model, width=128, depth=3, heads=4, token_hidden_ratio=1, detail_width=16
        ),
        encoder=c.EncoderConfig(kind="vgg16", size=32, block=9),
        data=replace(config.data, crop_size=64),
        optimizer=replace(config.optimizer, warmup_share=50 / 500),
        ema=replace(config.ema, decay=0.99),
        train=replace(
            config.train,
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
    config = small()
    if variant:
        encoder = c.EncoderConfig(kind="dinov2b", size=448, block=8)
        config = dataclasses.replace(config, encoder=encoder)
    return c.get_config_dict(config)
