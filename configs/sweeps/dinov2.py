"""The DINOv2 arm beside VGG16's, for who has its weights; see docs/ablations.md.

vosr sweep run configs/sweeps/dinov2.py --workdir DIR --config.encoder.path=FILE
"""

from vosr_jax.sweeps.hyper import product, sweep

CONFIG = "configs/ablations/nano.py:dinov2"


def get_sweep():
    """Every kind of guidance under three seeds, with DINOv2's tokens and with none."""
    kinds = ["restoration", "classifier_free", "none"]
    return product(
        sweep("seed", range(3)),
        sweep("guidance.kind", kinds),
        sweep("encoder.tokens_of", ["lq", "nothing"]),
    )
