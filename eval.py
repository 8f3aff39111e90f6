"""Evaluate a model: python eval.py --config configs/nano.py --workdir DIR [--config.key=value]."""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from vosr_jax.errors import UserError, run_main
from vosr_jax.script_flags import parse_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "File with the experiment's settings.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run, or any other: gets eval/.")


def main(argv: list[str]) -> None:
    """Run the evaluation and print its table."""
    if len(argv) > 1:
        raise UserError(f"unknown argument {argv[1]!r}; settings are given as --config.key=value")
    if _CONFIG.value is None or _WORKDIR.value is None:
        raise UserError("give --config FILE and --workdir DIR")
    logging.set_verbosity(logging.ERROR)
    from vosr_jax.config import validate
    from vosr_jax.evaluation.evaluate import run_evaluation

    print(run_evaluation(validate(_CONFIG.value), _WORKDIR.value))


if __name__ == "__main__":
    sys.exit(run_main(lambda: app.run(main, flags_parser=parse_flags)))
