"""Loading an experiment from a file in configs/ and overrides.

This module handles `--config.key=None`, which ml_collections takes for a text or refuses.
"""

import dataclasses
import importlib.util
import re
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections import config_dict, config_flags

from vosr_jax.config.schema import Config
from vosr_jax.config.validation import require_key, validate
from vosr_jax.errors import UserError

_OVERRIDE = re.compile(r"--?config\.([\w.]+)=None")
_PREFIX = "--config."


def take_nones(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate the overrides that set an optional key to None.

    Args:
      arguments: a program's arguments.

    Returns:
      (the other arguments, dotted keys to unset). Neither has an override that a later one of the
      same key replaces.
    """
    last = {_key(argument): number for number, argument in enumerate(arguments)}
    rest, keys = [], []
    for number, argument in enumerate(arguments):
        found = _OVERRIDE.fullmatch(argument)
        if found is None or not _may_be_none(found[1]):
            rest.append(argument)
        elif last[found[1]] == number:
            keys.append(found[1])
    return [a for a in rest if _key(a) not in keys], keys


def unset(config: Any, keys: Sequence[str]) -> None:
    """Set keys of a ConfigDict to None."""
    for dotted in keys:
        *sections, key = dotted.split(".")
        section = config
        for name in sections:
            section = section[name]
        section[key] = None


def _key(argument: str) -> str:
    found = re.match(r"--?(?:no)?config\.([\w.]+)", argument)
    return found[1] if found else argument


def _may_be_none(dotted: str) -> bool:
    hint: Any = Config
    for key in dotted.split("."):
        hints = typing.get_type_hints(hint) if dataclasses.is_dataclass(hint) else {}
        hint = hints.get(key)
    return type(None) in typing.get_args(hint)


def config_from_file(path: str, overrides: Sequence[str] = ()) -> Config:
    """Load and validate an experiment.

    Args:
      path: the config file, with `:VARIANT` if it has variants.
      overrides: texts "--config.key=value".

    Raises:
      UserError: the file cannot be used, a key is unknown, or a value is wrong.
    """
    for override in overrides:
        if not override.startswith(_PREFIX):
            raise UserError(f"unknown argument {override!r}; settings are --config.key=value")
        require_key(override.removeprefix(_PREFIX).split("=")[0])
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values)
    # ml_collections always reads overrides from sys.argv, not from the list it is given.
    given, nones = take_nones(overrides)
    arguments, sys.argv = sys.argv, ["vosr", f"--config={path}", *given]
    try:
        values(sys.argv)
        config: Any = values["config"].value
        unset(config, nones)
        config.to_dict()
    # A config file is a program, and ml_collections passes on every exception it raises.
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"--config {path}: {lines[-1].removeprefix('ValueError: ')}") from error
    finally:
        sys.argv = arguments
    return validate(config)


def get_config_dict(config: Config):
    """Convert a Config to an ml_collections ConfigDict that accepts --config.key=value."""

    def convert(value):
        converted = config_dict.ConfigDict()
        hints = typing.get_type_hints(type(value))
        for field in dataclasses.fields(value):
            item = getattr(value, field.name)
            if dataclasses.is_dataclass(item):
                item = convert(item)
            elif item is None:
                kind = next(a for a in typing.get_args(hints[field.name]) if a is not type(None))
                item = config_dict.placeholder(kind)
            converted[field.name] = item
        return converted

    return convert(config)


def parent(child: str, name: str) -> ModuleType:
    """Load the config file that another one changes.

    Args:
      child: `__file__` of the calling config file.
      name: path of the file to load from that file's folder, without .py.
    """
    path = Path(child).parent / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
