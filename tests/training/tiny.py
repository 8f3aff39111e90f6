"""Experiments small enough for a test."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from vosr_jax import config as c
from vosr_jax.diffusion.noise import index_words
from vosr_jax.training.build import denoiser_blueprint
from vosr_jax.weights.export import save_export


def tiny_config(**sections: dict) -> c.Config:
    """A VOSR of some thousand parameters on 32-pixel crops; sections override, key by key."""
    base = c.Config(
        seed=3,
        model=c.ModelConfig(patch_size=4, width=32, depth=2, heads=4, remat="none"),
        autoencoder=c.AutoencoderConfig(kind="space_to_depth", downscale=2),
        encoder=c.EncoderConfig(kind="none"),
        data=c.DataConfig(crop_size=32, workers=0),
        optimizer=c.OptimizerConfig(learning_rate=1e-3),
        ema=c.EmaConfig(decay=0.9),
        train=c.TrainConfig(
            total_steps=3,
            batch_size=4,
            log_every=1,
            checkpoint_every=2,
            sample_every=0,
            eval_every=0,
        ),
        sampling=c.SamplingConfig(steps=2, colour_fix="none"),
        eval=c.EvalConfig(crop_size=32, pictures=3),
    )
    changed = {
        name: dataclasses.replace(getattr(base, name), **changes)
        for name, changes in sections.items()
    }
    return c.validate(dataclasses.asdict(dataclasses.replace(base, **changed)))


def write_tiny_base(folder: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """An export of `tiny_config`'s network with random weights, none of them zero; its values."""
    config, rng = tiny_config(), np.random.default_rng(seed)
    shapes = denoiser_blueprint(config).shapes
    values = {k: rng.normal(0, 0.1, s.shape).astype(np.float32) for k, s in shapes.items()}
    save_export(folder, config.to_dict(), values, "float32")
    return values


def tiny_batch(step: int, size: int = 4, side: int = 32) -> dict[str, jax.Array]:
    """A batch of noise pictures, as a step gets it; positions of their own for every step."""
    rng = np.random.default_rng(step)
    hr, lq = rng.integers(0, 256, (2, size, side, side, 3), np.uint8)
    return {"hr": hr, "lq": lq, "index": index_words(np.arange(size) + step * size)}
