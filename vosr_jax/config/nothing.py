"""`--config.key=None` on the command line, which ml_collections takes for a text or refuses."""

import dataclasses
import re
import typing
from collections.abc import Sequence
from typing import Any

from vosr_jax.config.schema import Config

_OVERRIDE = re.compile(r"--?config\.([\w.]+)=None")


def take_nones(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Set the overrides apart by which a key that may be unset is.

    Args:
      arguments: of a program.

    Returns:
      (the other arguments, dotted keys to unset). An override that a later one of the same key
      replaces is left out of both.
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
