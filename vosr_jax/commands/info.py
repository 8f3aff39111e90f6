"""`vosr info`: what a model is."""

import argparse


def add_parser(commands) -> None:
    """Describe the command to argparse's subparsers."""
    info = commands.add_parser("info", help="show what a model is")
    info.add_argument("model", nargs="?", default="nano", metavar="MODEL")
    info.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the description."""
    from vosr_jax.restoration.loading import load_model
    from vosr_jax.restoration.summary import describe

    print(describe(load_model(options.model)))
    return 0
