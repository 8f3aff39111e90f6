"""Evaluate a model: python eval.py --config configs/nano.py --workdir DIR."""

import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from vosr_jax.errors import run_main

_CONFIG = config_flags.DEFINE_config_file("config", help_string="A file in configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Results go to its folder eval.", required=True)


def main(_: list[str]) -> None:
    """Run the evaluation and print its table."""

    def evaluate() -> None:
        from vosr_jax.config import validate
        from vosr_jax.evaluation.run import run_evaluation

        print(run_evaluation(validate(_CONFIG.value), Path(_WORKDIR.value)))

    sys.exit(run_main(evaluate))


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
