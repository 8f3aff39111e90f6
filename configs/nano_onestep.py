"""The multi-step nano distilled into one step, on the same photographs.

The student is the nano with a second time input r. VOSR's own objective, recursive consistency,
teaches it the average velocity over [r, t]; most rows are the one step from noise to the
picture, t = 1 and r = 0, and there a perceptual term acts as in the teacher's later stages.
The target's small step is longer than VOSR's 0.01, which divides a small network's errors.

configs/nano_onestep.py:VARIANT picks one of

    (none)   the student of the shipped `nano`, which configs/nano_direct.py:steps trains
    first    of a model that configs/nano.py trains; name it as the teacher
"""

import dataclasses

from vosr_jax import config as c


def teacher_config(variant: str) -> c.Config:
    """What the teacher was trained by."""
    if variant == "first":
        return c.parent(__file__, "nano").nano()
    direct = c.parent(__file__, "nano_direct")
    return direct.steps(direct.direct())


def get_config(variant: str = ""):
    """The whole experiment."""
    if variant not in ("", "first"):
        raise ValueError(f"configs/nano_onestep.py has the variant first, not {variant!r}")
    replace = dataclasses.replace
    config = teacher_config(variant)
    return c.get_config_dict(
        replace(
            config,
            seed=4,
            teacher="nano" if variant == "" else None,
            model=replace(config.model, r_embedding=True),
            objective=replace(
                config.objective,
                name="rcgm",
                penalty=c.ObjectiveConfig.penalty,
                weave_weight=0.0,
                time_distribution="uniform",
                delta_t=0.05,
                one_step_share=0.7,
                perceptual_weight=6.0,
                perceptual_rows=6,
                perceptual_crop=64,
            ),
            optimizer=replace(
                config.optimizer, learning_rate=5e-4, muon_learning_rate=4e-3, warmup_share=20 / 240
            ),
            train=replace(
                config.train, total_steps=240, batch_size=8, log_every=10, checkpoint_every=20
            ),
            sampling=replace(config.sampling, steps=1, colour_fix="wavelet"),
        )
    )
