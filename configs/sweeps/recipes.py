"""Which mixture of degradations a small model learns most from, at equal steps.

vosr sweep run configs/sweeps/recipes.py --workdir DIR [--config.key=value]
"""

from vosr_jax.sweeps.hyper import product, sweep

CONFIG = "configs/ablations/nano.py"
MIXTURES = (
    "official",
    "official:0.75,mild:0.25",
    "official:0.5,mild:0.5",
    "official:0.5,mild:0.38,clean:0.12",
    "official:0.3,mild:0.35,clean:0.35",
    "mild",
)


def get_sweep():
    """Every mixture under three seeds."""
    return product(sweep("data.degradation.mixture", MIXTURES), sweep("seed", range(3)))
