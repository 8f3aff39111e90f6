"""VOSR 0.5B in one step: SD 2.1 latents, DINOv2 ViT-B/14 tokens, distilled.

The released configuration: recursive consistency from the released multi-step model, whose
weights the student begins with; 100,000 steps of 32 at 512 px, guidance 0.5. `teacher` may name
another run, export or release. configs/vosr_0_5b_onestep.py:fast is its faster twin, as in
configs/vosr_0_5b.py.
"""

import dataclasses

from vosr_jax import config as c
from vosr_jax.diffusion.guidance import GuidanceSettings


def one_step(variant: str) -> c.Config:
    """The whole experiment; every hyperparameter that is not named has its official default."""
    if variant not in ("", "fast"):
        raise ValueError(f"the variant is fast, not {variant!r}")
    replace = dataclasses.replace
    config = c.parent(__file__, "vosr_0_5b").multi_step(variant or "released")
    return replace(
        config,
        teacher="preset/ckpts/VOSR_0.5B_ms",
        model=replace(config.model, r_embedding=True),
        objective=c.ObjectiveConfig(
            name="rcgm", delta_t=0.01, n_steps=2, weak_strength=0.1, average_weight=1.0
        ),
        guidance=GuidanceSettings(drop_rate=0.1, scale=0.5),
        data=replace(config.data, workers=16),
        optimizer=replace(config.optimizer, learning_rate=2e-5),
        ema=c.EmaConfig(decay=0.9999),
        train=replace(
            config.train,
            total_steps=100_000,
            batch_size=32,
            checkpoint_every=5000,
            sample_every=5000,
            eval_every=5000,
        ),
        sampling=c.SamplingConfig(steps=1),
    )


def get_config(variant: str = ""):
    """The experiment."""
    return c.get_config_dict(one_step(variant))
