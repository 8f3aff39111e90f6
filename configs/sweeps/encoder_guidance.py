"""What the encoder brings, and what the guidance: every source of tokens with every guidance.

docs/ablations.md says how it was run and what may be concluded.
"""

from vosr_jax.sweeps.hyper import chainit, product, sweep, zipit

CONFIG = "configs/ablations/nano.py"


def arm(tokens="lq", weights="trained", guidance="restoration"):
    """The overrides of one arm, but for its seed."""
    return {
        "guidance.kind": guidance,
        "encoder.weights": weights,
        "encoder.tokens_of": tokens,
    }


REFERENCE = arm("nothing", guidance="none")
COMPARISONS = [
    (arm(weights="random"), arm("nothing")),
    (arm(), arm(weights="random")),
    (arm(), arm("other")),
    (arm(), arm("nothing")),
    (arm("hr"), arm("nothing")),
    (arm("hr"), arm()),
    *((arm(guidance=kind), arm("nothing", guidance=kind)) for kind in ("classifier_free", "none")),
    *((arm("hr", guidance=k), arm("nothing", guidance=k)) for k in ("classifier_free", "none")),
    (arm(), arm(guidance="classifier_free")),
    (arm(), arm(guidance="none")),
    (arm("nothing"), arm("nothing", guidance="classifier_free")),
    (arm("nothing"), arm("nothing", guidance="none")),
]


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
