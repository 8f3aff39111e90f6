"""Combine lists of overrides, {"model.depth": 4, ...} each, into sweeps."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

Overrides = dict[str, Any]


def sweep(key: str, values: Iterable[Any]) -> list[Overrides]:
    """One setting with several values."""
    return [{key: value} for value in values]


def fixed(key: str, value: Any) -> list[Overrides]:
    """One setting with one value."""
    return sweep(key, [value])


def product(*sweeps: Sequence[Overrides]) -> list[Overrides]:
    """All combinations; the last sweep varies fastest.

    Raises:
      ValueError: two sweeps set the same key.
    """
    return [_merge(parts) for parts in itertools.product(*sweeps)]


def zipit(*sweeps: Sequence[Overrides]) -> list[Overrides]:
    """Combine sweeps item by item: the first with the first, the second with the second.

    Raises:
      ValueError: the sweeps differ in length, or two set the same key.
    """
    if len({len(part) for part in sweeps}) > 1:
        raise ValueError(f"zipit needs sweeps of one length, not {[len(part) for part in sweeps]}")
    return [_merge(parts) for parts in zip(*sweeps, strict=True)]


def chainit(*sweeps: Sequence[Overrides]) -> list[Overrides]:
    """Concatenate sweeps."""
    return list(itertools.chain(*sweeps))


def _merge(parts: Iterable[Overrides]) -> Overrides:
    merged: Overrides = {}
    for part in parts:
        twice = sorted(merged.keys() & part.keys())
        if twice:
            raise ValueError(f"two sweeps set {twice[0]}")
        merged |= part
    return merged
