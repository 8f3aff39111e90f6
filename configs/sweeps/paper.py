"""What the paper did not isolate, one question after another, at whatever size CONFIG names.

    vosr sweep run configs/sweeps/paper.py --workdir DIR [--config.key=value]

Each question changes one thing of the config; SWEEPS names them, and QUESTION in the environment
runs one alone.
"""

import os

from vosr_jax.sweeps.hyper import chainit, product, sweep, zipit

CONFIG = "configs/ablations/nano.py"
SEEDS = sweep("seed", range(3))

SWEEPS = {
    "weak_strength": sweep(
        "guidance.weak_strength_range", [(0.0, 0.1), (0.05, 0.25), (0.25, 0.5), (0.5, 0.9)]
    ),
    "time": chainit(
        sweep("objective.time_distribution", ["uniform"]),
        product(
            sweep("objective.time_distribution", ["lognorm"]),
            zipit(
                sweep("objective.time_mu", [0.0, 0.8, -0.8]),
                sweep("objective.time_sigma", [1.0, 1.2, 1.2]),
            ),
        ),
    ),
    "prediction": chainit(
        product(
            sweep("objective.endpoint", ["hr", "residual"]),
            sweep("objective.prediction", ["velocity", "endpoint"]),
        ),
    ),
    "degradation": sweep("data.degradation.official.jpeg", ["official", "libjpeg"]),
    "ema": sweep("ema.decay", [0.9, 0.99, 0.999]),
}


def get_sweep():
    """Every question under three seeds."""
    chosen = os.environ.get("QUESTION")
    if chosen is not None and chosen not in SWEEPS:
        raise ValueError(f"QUESTION is {chosen!r}; choose of {', '.join(SWEEPS)}")
    asked = SWEEPS.values() if chosen is None else [SWEEPS[chosen]]
    return [trial for question in asked for trial in product(question, SEEDS)]
