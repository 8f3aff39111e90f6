"""The `vosr` command."""

import sys
from collections.abc import Sequence

from vosr_jax.commands import interrupts
from vosr_jax.commands.output import lenient
from vosr_jax.errors import run_main


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, 1 for any failure, 2 for a wrong call."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    with interrupts.watched(), lenient():
        code = _run(arguments)
        return 130 if interrupts.was_interrupted() else code


def _run(arguments: list[str]) -> int:
    # Imported here because Ctrl-C must be watched during these imports.
    from vosr_jax.commands.parser import parse
    from vosr_jax.quiet import quieten

    options = parse(arguments)
    quieten()
    if not getattr(options, "starts", False):
        interrupts.running()
    return run_main(lambda: options.run(options))


if __name__ == "__main__":
    sys.exit(main())
