"""Patterns of shard names: `a-{000..127}.tar`, `{x,y}/*.tar`."""

import itertools
import re
from collections.abc import Iterator

from vosr_jax.errors import UserError

_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?")
_LETTERS = re.compile(r"([a-zA-Z])\.\.([a-zA-Z])")
_MOST = 100_000


def split_outside_braces(text: str) -> list[str]:
    """Split at commas that are not inside braces."""
    spans = list(_braces(text))
    parts, begin = [], 0
    for position, letter in enumerate(text):
        if letter == "," and not any(start < position < end for start, end in spans):
            parts.append(text[begin:position])
            begin = position + 1
    return [*parts, text[begin:]]


def expand_braces(pattern: str) -> list[str]:
    """Expand a pattern's braces as bash does; a pattern without braces stays as it is.

    Numbers keep their leading zeros: {08..10} is 08, 09, 10. Braces without a range or a comma stay
    as they are.

    Raises:
      UserError: it expands to more than 100,000 names.
    """
    found = list(itertools.islice(_expanded(pattern), _MOST + 1))
    if len(found) > _MOST:
        raise UserError(f"data.sources: {pattern} stands for more than {_MOST:,} names")
    return found


def _expanded(pattern: str) -> Iterator[str]:
    for begin, end in _braces(pattern):
        choices = _choices(pattern[begin + 1 : end])
        if choices is None:
            continue
        before, rest = pattern[:begin], pattern[end + 1 :]
        for choice in choices:
            yield from (before + each for each in _joined(choice, rest))
        return
    yield pattern


def _joined(choice: str, rest: str) -> Iterator[str]:
    for first in _expanded(choice):
        yield from (first + second for second in _expanded(rest))


def _braces(pattern: str) -> Iterator[tuple[int, int]]:
    """Yield the positions of every { and its }, from the left."""
    for begin, letter in enumerate(pattern):
        if letter != "{":
            continue
        depth = 0
        for end in range(begin, len(pattern)):
            depth += (pattern[end] == "{") - (pattern[end] == "}")
            if not depth:
                yield begin, end
                break


def _choices(inside: str) -> list[str] | None:
    numbers = _RANGE.fullmatch(inside)
    if numbers:
        return _numbers(*numbers.groups())
    letters = _LETTERS.fullmatch(inside)
    if letters:
        first, last = map(ord, letters.groups())
        step = 1 if last >= first else -1
        return [chr(code) for code in range(first, last + step, step)]
    parts = split_outside_braces(inside)
    return parts if len(parts) > 1 else None


def _numbers(first: str, last: str, step: str | None) -> list[str]:
    begin, end = int(first), int(last)
    stride = abs(int(step or 1)) or 1
    if abs(end - begin) // stride >= _MOST:
        raise UserError(f"data.sources: {{{first}..{last}}} stands for more than {_MOST:,} names")
    padded = any(len(text.lstrip("-")) > 1 and text.lstrip("-")[0] == "0" for text in (first, last))
    width = max(len(first), len(last)) if padded else 0
    sign = 1 if end >= begin else -1
    return [f"{number:0{width}d}" for number in range(begin, end + sign, sign * stride)]
