"""A VOSR small enough for two CPU cores, on pixels, without visual tokens.

What differs from VOSR at this size, each a setting: the latent is the picture itself (exact
space-to-depth), the flow's endpoint is the scaled residual hr - lq and the network predicts it
(velocity prediction fails on wide pixel patches), convolutions surround the transformer (no
patch grid), Muon, a short EMA, and in the second stage a perceptual term in place of what a
learned autoencoder brings.

configs/nano.py:VARIANT picks one of

    (none)  stage one of the shipped model: flow matching alone
    sharp   stage two, from stage one's weights: with the perceptual term; set train.init_from
    texture stage three, from stage two's: with more of it, for a moment
    finish  stage four, from stage three's: as stage two, with twice the perceptual term
    vosr    VOSR's own settings at this size: velocity of hr, AdamW, no detailer, no perceptual
            term; to compare with
"""

import dataclasses

from vosr_jax import config as c
from vosr_jax.diffusion.guidance import GuidanceSettings


def nano() -> c.Config:
    """Stage one."""
    return c.Config(
        seed=1,
        model=c.ModelConfig(
            patch_size=4,
            width=192,
            depth=6,
            heads=3,
            rescale_positions=False,
            detail_width=32,
            remat="none",
        ),
        autoencoder=c.AutoencoderConfig(kind="space_to_depth", downscale=2),
        encoder=c.EncoderConfig(kind="none"),
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
        data=c.DataConfig(crop_size=96, flip=True, workers=1),
        optimizer=c.OptimizerConfig(
            name="muon",
            learning_rate=1e-3,
            muon_learning_rate=0.015,
            schedule="cosine",
            warmup_steps=None,
            warmup_share=50 / 2000,
            beta2=0.99,
        ),
        ema=c.EmaConfig(decay=0.999, ramp=True),
        train=c.TrainConfig(
            total_steps=2000,
            batch_size=16,
            log_every=20,
            checkpoint_every=200,
            sample_every=400,
            eval_every=400,
        ),
        sampling=c.SamplingConfig(steps=8, colour_fix="wavelet"),
        eval=c.EvalConfig(crop_size=256, pictures=9),
    )


def sharp(config: c.Config) -> c.Config:
    """LPIPS's gradient is noisy, and at this weight somewhat longer than flow matching's."""
    replace = dataclasses.replace
    return replace(
        config,
        seed=2,
        objective=replace(
            config.objective, perceptual_weight=2.0, perceptual_rows=8, perceptual_crop=64
        ),
        optimizer=replace(
            config.optimizer, learning_rate=5e-4, muon_learning_rate=5e-3, warmup_share=20 / 1000
        ),
        train=replace(config.train, total_steps=1000),
    )


def texture(config: c.Config) -> c.Config:
    """As stage two ends the pictures are smooth; a larger weight brings the grain back."""
    replace = dataclasses.replace
    config = sharp(config)
    return replace(
        config,
        seed=3,
        objective=replace(config.objective, perceptual_weight=6.0),
        optimizer=replace(config.optimizer, muon_learning_rate=4e-3, warmup_share=20 / 300),
        train=replace(config.train, total_steps=300),
    )


def finish(config: c.Config) -> c.Config:
    """Long enough for the grain of stage three to settle where it belongs."""
    replace = dataclasses.replace
    config = sharp(config)
    return replace(
        config,
        seed=4,
        objective=replace(config.objective, perceptual_weight=4.0),
        optimizer=replace(config.optimizer, warmup_share=20 / 1200),
        train=replace(config.train, total_steps=1200),
    )


def vosr(config: c.Config) -> c.Config:
    """What the large models are trained with, on the nano's pixels."""
    replace = dataclasses.replace
    return replace(
        config,
        model=replace(config.model, detail_width=0, rescale_positions=True),
        objective=c.ObjectiveConfig(),
        guidance=GuidanceSettings(),
        optimizer=c.OptimizerConfig(
            learning_rate=1e-3, schedule="cosine", warmup_steps=None, warmup_share=50 / 2000
        ),
        sampling=c.SamplingConfig(steps=25, colour_fix="none"),
    )


def get_config(variant: str = ""):
    """The whole experiment."""
    stages = {"": lambda config: config, "sharp": sharp, "texture": texture, "finish": finish}
    variants = stages | {"vosr": vosr}
    if variant not in variants:
        known = ", ".join(filter(None, variants))
        raise ValueError(f"configs/nano.py has the variants {known}, not {variant!r}")
    return c.get_config_dict(variants[variant](nano()))
