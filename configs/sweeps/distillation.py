"""The objectives of one-step distillation, from one teacher.

vosr sweep run configs/sweeps/distillation.py --workdir DIR --config.train.total_steps=300
"""

from vosr_jax.sweeps.hyper import product, sweep

CONFIG = "configs/nano_onestep.py"


def get_sweep():
    """Three objectives under three seeds."""
    return product(
        sweep("objective.name", ["rcgm", "shortcut", "mean_flow"]), sweep("seed", range(3))
    )
