"""`vosr train-on`: continue a model's training on the user's photos."""

import argparse
import importlib
import math
from pathlib import Path

from vosr_jax.compilation_cache import use_compilation_cache
from vosr_jax.errors import UserError
from vosr_jax.quiet import open_devices, quiet_libraries

_INTERRUPTED = 130


def add_parser(commands) -> None:
    """Describe the command to argparse's subparsers."""
    command = commands.add_parser(
        "train-on",
        help="train a model on with your own photographs",
        description="Train a model on with a folder of photographs, by small adapters or all "
        "weights, and compare it with its base on photographs that are held out. The same command "
        "again goes on where it has stopped.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = command.add_argument
    add("folder", metavar="FOLDER", help="of photographs; those in folders below count too")
    add("-o", "--out", type=Path, required=True, metavar="OUT", help="gets model, pictures and run")
    add("-m", "--model", default="nano-onestep", help="the base, as for vosr upscale")
    kind = command.add_mutually_exclusive_group()
    kind.add_argument("--rank", type=int, default=16, help="of the adapters that are trained")
    kind.add_argument("--full", action="store_true", help="train all weights, not adapters")
    add("--minutes", type=float, default=5.0, help="for all of the command")
    add("--steps", type=int, help="of training, instead of the minutes")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train, compare with the base, and print whether it improved."""
    if options.rank < 1 or not (0 < options.minutes < math.inf):
        raise UserError("--rank and --minutes must be positive; --full trains without adapters")
    if options.steps is not None and options.steps < 1:
        raise UserError(f"--steps {options.steps} must be at least 1")
    quiet_libraries()
    open_devices()
    try:
        for package in ("grain", "optax", "orbax.checkpoint"):
            importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"training needs pip install '.[train]' ({error})") from error
    # These load JAX and the packages above.
    from vosr_jax.tuning import evaluator, settings, tune

    use_compilation_cache()
    rank = 0 if options.full else options.rank
    wishes = settings.Wishes(options.model, rank, options.minutes, options.steps or 0)
    outcome = tune.train_on(options.folder, options.out, wishes, _tell)
    for line in evaluator.closing_lines(outcome, options.out, wishes):
        print(line)
    return 0 if outcome.verdict is not None else _INTERRUPTED


def _tell(text: str) -> None:
    print(text, flush=True)
