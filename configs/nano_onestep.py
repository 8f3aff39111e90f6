"""The nano model in one step: distilled from configs/nano.py's model, on the same photographs.

The student is the nano with a second time input r. VOSR's own objective, recursive consistency,
teaches it the average velocity over [r, t]; most rows are the one step from noise to the
picture, t = 1 and r = 0, and there a perceptual term acts as in the teacher's later stages.
The target's small step is longer than VOSR's 0.01, which divides a small network's errors.
"""

import dataclasses
import importlib.util
from pathlib import Path

from vosr_jax import config as c


def teacher_config() -> c.Config:
    """configs/nano.py's first stage."""
    path = Path(__file__).with_name("nano.py")
    spec = importlib.util.spec_from_file_location("nano", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.nano()


def get_config():
    """The whole experiment."""
    replace = dataclasses.replace
    config = teacher_config()
    return c.get_config_dict(
        replace(
            config,
            seed=4,
            teacher="nano",
            model=replace(config.model, r_embedding=True),
            objective=replace(
                config.objective,
                name="rcgm",
                time_distribution="uniform",
                delta_t=0.05,
                one_step_share=0.7,
                perceptual_weight=6.0,
                perceptual_rows=6,
                perceptual_crop=64,
            ),
            optimizer=replace(
                config.optimizer, learning_rate=5e-4, muon_learning_rate=4e-3, warmup_steps=20
            ),
            train=replace(
                config.train, total_steps=240, batch_size=8, log_every=10, checkpoint_every=20
            ),
            sampling=replace(config.sampling, steps=1, colour_fix="wavelet"),
        )
    )
