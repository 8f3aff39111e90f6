"""Whether six times the steps show what tokens can bring; see docs/ablations.md."""

from vosr_jax.sweeps.hyper import fixed, product, sweep

CONFIG = "configs/ablations/nano.py"


def arm(tokens):
    """The overrides of one arm, but for its seed; without guidance, whose effect was nothing."""
    return {"guidance.kind": "none", "train.total_steps": 3000, "encoder.tokens_of": tokens}


REFERENCE = arm("nothing")
COMPARISONS = [
    (arm("hr"), arm("nothing")),
    (arm("lq"), arm("nothing")),
    (arm("hr"), arm("lq")),
]


def get_sweep():
    """No tokens, the truth's and the degraded picture's, seed by seed."""
    return product(
        sweep("seed", range(2)),
        fixed("guidance.kind", "none"),
        fixed("train.total_steps", 3000),
        sweep("encoder.tokens_of", ["nothing", "hr", "lq"]),
    )
