"""A VOSR small enough for two CPU cores, on pixels, without visual tokens.

What differs from VOSR at this size, each a setting: the latent is the picture itself (exact
space-to-depth), the flow's endpoint is the scaled residual hr - lq and the network predicts it
(velocity prediction fails on wide pixel patches), convolutions surround the transformer (no
patch grid), a perceptual term replaces what a learned autoencoder brings, Muon, and a short EMA.
"""

from vosr_jax import config as c
from vosr_jax.diffusion.conditions import GuidanceSettings


def get_config():
    """The whole experiment."""
    return c.get_config_dict(
        c.Config(
            seed=1,
            model=c.ModelConfig(
                patch_size=4,
                width=256,
                depth=6,
                heads=4,
                rescale_positions=False,
                detail_width=32,
                remat="none",
            ),
            autoencoder=c.AutoencoderConfig(kind="space_to_depth", downscale=2),
            encoder=c.EncoderConfig(kind="none"),
            objective=c.ObjectiveConfig(
                time_distribution="lognorm",
                time_mu=0.5,
                endpoint="residual",
                prediction="endpoint",
                residual_scale=0.15,
                perceptual_weight=10.0,
                perceptual_rows=4,
                perceptual_crop=64,
            ),
            guidance=GuidanceSettings(condition_strength=(9.0, 1.0), scale=1.0),
            data=c.DataConfig(crop_size=96, flip=True, workers=1),
            optimizer=c.OptimizerConfig(
                name="muon",
                learning_rate=1e-3,
                muon_learning_rate=0.015,
                schedule="cosine",
                warmup_steps=50,
                beta2=0.99,
            ),
            ema=c.EmaConfig(decay=0.999, ramp=True),
            train=c.TrainConfig(
                total_steps=3600,
                batch_size=16,
                log_every=20,
                checkpoint_every=200,
                sample_every=400,
                eval_every=400,
            ),
            sampling=c.SamplingConfig(steps=4, colour_fix="none"),
            eval=c.EvalConfig(crop_size=256, pictures=9),
        )
    )
