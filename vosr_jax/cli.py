"""The `vosr` command."""

import argparse
import sys
from collections.abc import Sequence

from vosr_jax.commands import convert, data, info, plan, sweep, upscale
from vosr_jax.errors import run_main


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, 1 for any failure, 2 for a wrong call."""
    options, rest = _parser().parse_known_args(arguments)
    if rest and not getattr(options, "takes_overrides", False):
        _parser().error(f"unrecognized arguments: {' '.join(rest)}")
    options.overrides = rest
    return run_main(lambda: options.run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vosr", description="Restore and enlarge photographs with a generative model."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (upscale, convert, info, data, plan, sweep):
        command.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
