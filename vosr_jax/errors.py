"""Errors that are shown to the user."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """One clear sentence that names the file or key at fault and says what to do."""


def run_main(main: Callable[[], int | None]) -> int:
    """Run an entry point; a UserError becomes one line on stderr and exit code 1.

    Args:
      main: the program; its integer result, if any, is the exit code.

    Returns:
      The exit code.
    """
    try:
        return main() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted from the keyboard", file=sys.stderr)
        return 130
