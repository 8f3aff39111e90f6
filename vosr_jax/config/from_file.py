"""An experiment from a file in configs/ and overrides, outside absl's programs."""

import sys
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from vosr_jax.config.nothing import take_nones, unset
from vosr_jax.config.schema import Config
from vosr_jax.config.validation import require_key, validate
from vosr_jax.errors import UserError

_PREFIX = "--config."


def config_from_file(path: str, overrides: Sequence[str] = ()) -> Config:
    """The validated experiment.

    Args:
      path: of the file, with `:VARIANT` where it has variants.
      overrides: "--config.key=value" each.

    Raises:
      UserError: the file can't be used, a key is unknown, a value is wrong.
    """
    for override in overrides:
        if not override.startswith(_PREFIX):
            raise UserError(f"unknown argument {override!r}; settings are --config.key=value")
        require_key(override.removeprefix(_PREFIX).split("=")[0])
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values)
    # ml_collections looks for overrides in the program's arguments, whatever it is given.
    given, nones = take_nones(overrides)
    arguments, sys.argv = sys.argv, ["vosr", f"--config={path}", *given]
    try:
        values(sys.argv)
        config: Any = values["config"].value
        unset(config, nones)
        config.to_dict()
    # A config file is a program and ml_collections passes on whatever it raises.
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"--config {path}: {lines[-1].removeprefix('ValueError: ')}") from error
    finally:
        sys.argv = arguments
    return validate(config)
