"""The nano model trained for one step directly: no teacher, all times near 1.

From noise in one step the flow's endpoint is a plain estimate of the picture, so the objective is
the distance of that estimate, and what a teacher could add is the perceptual term, which comes in
the second stage. The network is made of convolutions at the LR picture's size around a thin
transformer that sees how the picture was damaged; its head ends at the pixels. docs/nano.md has
the networks and settings that were tried beside it.

configs/nano_direct.py:VARIANT picks one of

    (none)      stage one: Charbonnier's distance alone
    perceptual  stage two, from stage one's weights (train.init_from): with LPIPS
    finish      stage three, from stage two's: against the weave that LPIPS brings
    adversarial stage four, from stage three's on crops of 128 px: with a discriminator; its
                weights are blended with stage three's (benchmarks/blend_weights.py)
    steps       the multi-step model, from any: times of all kinds, and a weak condition
"""

import dataclasses

from vosr_jax import config as c
from vosr_jax.data.degradation.settings import DegradationSettings
from vosr_jax.diffusion.guidance import GuidanceSettings


def direct() -> c.Config:
    """Stage one."""
    return c.Config(
        seed=1,
        model=c.ModelConfig(
            patch_size=4,
            width=192,
            depth=4,
            heads=3,
            rescale_positions=False,
            detail_width=64,
            detail_stem_blocks=4,
            detail_blocks=8,
            pixel_width=16,
            remove_weave=True,
            remat="none",
        ),
        autoencoder=c.AutoencoderConfig(kind="space_to_depth", downscale=4),
        encoder=c.EncoderConfig(kind="none"),
        objective=c.ObjectiveConfig(
            time_distribution="lognorm",
            time_mu=8.0,
            time_sigma=0.5,
            endpoint="residual",
            prediction="endpoint",
            smallest_t=0.2,
            penalty="charbonnier",
        ),
        # Hardly any noise in the condition: noise hides fine detail, and how damaged it is.
        guidance=GuidanceSettings(kind="none", condition_strength=(14.0, 1.0), scale=1.0),
        data=c.DataConfig(
            crop_size=64,
            flip=True,
            workers=1,
            degradation=DegradationSettings(mixture="official:0.5,mild:0.36,clean:0.14"),
        ),
        optimizer=c.OptimizerConfig(
            name="muon",
            learning_rate=1e-3,
            muon_learning_rate=0.01,
            muon_convolutions=True,
            warmup_steps=50,
            beta2=0.99,
        ),
        ema=c.EmaConfig(decay=0.999, ramp=True),
        train=c.TrainConfig(
            total_steps=40_000,
            batch_size=16,
            log_every=20,
            checkpoint_every=200,
            sample_every=0,
            eval_every=0,
        ),
        sampling=c.SamplingConfig(steps=1, colour_fix="wavelet"),
        eval=c.EvalConfig(crop_size=256, pictures=9),
    )


def perceptual(config: c.Config) -> c.Config:
    """VGG16 costs more than the network, so a quarter of the rows is compared."""
    replace = dataclasses.replace
    return replace(
        config,
        seed=2,
        objective=replace(
            config.objective, perceptual_weight=1.5, perceptual_rows=4, perceptual_crop=64
        ),
        optimizer=replace(
            config.optimizer, learning_rate=4e-4, muon_learning_rate=4e-3, schedule="cosine"
        ),
        train=replace(config.train, total_steps=4000),
    )


def finish(config: c.Config) -> c.Config:
    """The weave is a grey level or less: it takes a large weight to be seen beside the rest."""
    replace = dataclasses.replace
    config = perceptual(config)
    return replace(
        config,
        seed=4,
        objective=replace(config.objective, weave_weight=30.0),
        optimizer=replace(config.optimizer, learning_rate=2e-4, muon_learning_rate=2e-3),
        train=replace(config.train, total_steps=600),
    )


def adversarial(config: c.Config) -> c.Config:
    """A discriminator asks for detail where LPIPS and a median are content with a soft picture."""
    replace = dataclasses.replace
    config = finish(config)
    mixture = DegradationSettings(mixture="official:0.7,mild:0.2,clean:0.1")
    return replace(
        config,
        seed=11,
        objective=replace(
            config.objective, adversarial_weight=0.4, perceptual_weight=4.0, perceptual_crop=96
        ),
        data=replace(config.data, crop_size=128, degradation=mixture),
        optimizer=replace(config.optimizer, learning_rate=3e-4),
        train=replace(config.train, total_steps=1000, batch_size=8),
    )


def steps(config: c.Config) -> c.Config:
    """Times of all kinds, most of them large, as the few steps of the sampler ask for."""
    replace = dataclasses.replace
    config = perceptual(config)
    return replace(
        config,
        seed=3,
        objective=replace(config.objective, time_mu=0.8, time_sigma=1.2, weave_weight=30.0),
        guidance=replace(config.guidance, kind="restoration"),
        sampling=replace(config.sampling, steps=3),
    )


def get_config(variant: str = ""):
    """The whole experiment."""
    variants = {
        "": lambda config: config,
        "perceptual": perceptual,
        "finish": finish,
        "adversarial": adversarial,
        "steps": steps,
    }
    if variant not in variants:
        known = ", ".join(filter(None, variants))
        raise ValueError(f"configs/nano_direct.py has the variants {known}, not {variant!r}")
    return c.get_config_dict(variants[variant](direct()))
