"""What the encoder brings, and what the guidance: every source of tokens with every guidance.

docs/ablations.md says how it was run and what may be concluded.
"""

from vosr_jax.sweeps.hyper import chainit, product, sweep, zipit

CONFIG = "configs/ablations/nano.py"


def encoders():
    """VGG16's own tokens, an untrained network's, another picture's, none, the truth's."""
    weights = ["trained", "random", "trained", "trained", "trained"]
    tokens_of = ["lq", "lq", "other", "nothing", "hr"]
    return zipit(sweep("encoder.weights", weights), sweep("encoder.tokens_of", tokens_of))


def get_sweep():
    """Seed by seed, so that a sweep that is stopped has whole seeds."""
    kinds = ["restoration", "classifier_free", "none"]
    one = product(sweep("guidance.kind", kinds), encoders())
    return chainit(*(product(one, sweep("seed", [seed])) for seed in range(3)))
