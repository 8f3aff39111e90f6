"""Flags of train.py and eval.py; a mistake on the command line becomes one sentence."""

import re
import sys

from absl import flags
from ml_collections import config_flags

from vosr_jax.config import require_key
from vosr_jax.config.from_file import take_nones, unset
from vosr_jax.errors import UserError

_OVERRIDE = re.compile(r"--?(?:no)?config\.([\w.]+)")


def parse_flags(argv: list[str]) -> list[str]:
    """Parse absl's flags, including --config FILE and --config.key=value.

    Args:
      argv: the program and its arguments.

    Returns:
      The remaining arguments, the program first.

    Raises:
      UserError: an unknown flag or key, a value of the wrong type, an unusable config file.
    """
    for argument in argv[1:]:
        override = _OVERRIDE.match(argument)
        if override:
            require_key(override[1])
    given, nones = take_nones(argv)
    # ml_collections always reads overrides from sys.argv, not from the list it is given.
    before, sys.argv = sys.argv, given
    try:
        rest = flags.FLAGS(given)
        _require_config_file()
        if nones:
            unset(flags.FLAGS["config"].value, nones)
    # A config file is a program, and ml_collections passes on every exception it raises.
    except Exception as error:
        # The message may contain a traceback, whose last line names the fault.
        lines = str(error).strip().splitlines() or [f"config file: {type(error).__name__}"]
        raise UserError(lines[-1].removeprefix("ValueError: ")) from error
    finally:
        sys.argv = before
    return rest


def _require_config_file() -> None:
    """Refuse an unreadable config file, which ml_collections reports only at first use."""
    config = flags.FLAGS["config"]
    if config.value is None:
        return
    try:
        config.value.to_dict()
    except OSError as error:
        path = config_flags.get_config_filename(config).split(":")[0]
        raise UserError(f"config file {path} cannot be read; name one of configs/") from error
