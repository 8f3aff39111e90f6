"""The official text format: a file that names datasets, in either of its two meanings.

Every line is `path[, number]`; blank lines and those that start with # are passed over. With
`dataset_type: txt` a path is that of a list of picture files and the number says how often the
list is repeated; with `webdataset` it is a folder of tar shards and the number is its sampling
weight. What the paths are decides here which of the two is meant. (official:
train_vosr.py load_dataset_config, dataloaders/realsr_dataset.py)
"""

import os
from collections.abc import Callable

from vosr_jax.data.pictures import is_picture_path
from vosr_jax.data.sources.concatenated import ConcatenatedSource
from vosr_jax.data.sources.files import FileSource
from vosr_jax.data.sources.names import Names
from vosr_jax.data.sources.source import Source
from vosr_jax.errors import UserError


def text_sources(
    path: str, open_folder: Callable[[str, float], Source], weight: float = 1.0
) -> tuple[Source, ...]:
    """What a text file names.

    Args:
      path: a list of picture files, or a file in the official format. Relative paths in it are
        taken from the working directory, as officially; where the first is not found there,
        from the text file's folder.
      open_folder: opens (folder, weight).
      weight: of all that the file names together.

    Returns:
      One source for lists of pictures, with every list as often as its number says; or one a
      folder, which divide the weight by their numbers.

    Raises:
      UserError: the file is empty, a line is malformed, or the two meanings are mixed.
    """
    every = read_lines(path)
    if every and is_picture_path(every[0]):
        return (_list_source(path, every, weight),)
    lines = [line for line in every if not line.startswith("#")]
    if not lines:
        raise UserError(f"data.sources: {path} names nothing; write a path on every line")
    entries = [_entry(path, line) for line in lines]
    root = _root(path, entries[0][0])
    named = [(os.path.join(root, name), number) for name, number in entries]
    folders = [os.path.isdir(name) for name, _ in named]
    for (name, _), line in zip(named, lines, strict=True):
        if not os.path.exists(name):
            raise UserError(f"data.sources: {path} names {line!r}, but there is no {name}")
    if any(is_picture_path(name) for name, _ in named):
        raise UserError(
            f"data.sources: {path} names pictures among other things; in a list of pictures every "
            "line is the path of one, without a number"
        )
    if all(folders):
        total = sum(number for _, number in named)
        return tuple(open_folder(name, weight * number / total) for name, number in named)
    if any(folders):
        raise UserError(
            f"data.sources: {path} names both folders and lists of files, and the number on a "
            "line means a weight for the first, a repetition for the second; make two files"
        )
    parts: list[Source] = []
    for name, number in named:
        # Weights inside count for nothing; what a list is worth is its length times its number.
        parts += [_list_source(name, read_lines(name), 1.0)] * number
    return (ConcatenatedSource(path, weight, tuple(parts)),)


def read_lines(path: str) -> list[str]:
    """A text file's lines without their margins, blank ones left out; raises UserError."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return [line for line in map(str.strip, file) if line]
    except OSError as error:
        raise UserError(f"data.sources: {path} cannot be read ({error.strerror})") from error


def _list_source(path: str, files: list[str], weight: float) -> FileSource:
    if not files:
        raise UserError(f"data.sources: {path} names no pictures")
    return FileSource(path, weight, _root(path, files[0]), Names(files))


def _root(path: str, first: str) -> str:
    return "" if os.path.exists(first) else os.path.dirname(os.path.abspath(path))


def _entry(path: str, line: str) -> tuple[str, int]:
    name, *numbers = (part.strip() for part in line.split(","))
    if not numbers:
        return name, 1
    if len(numbers) > 1 or not numbers[0].isdecimal() or int(numbers[0]) < 1:
        raise UserError(
            f"data.sources: {path}: {line!r} should be a path, or a path, a comma and a whole "
            "number above 0"
        )
    return name, int(numbers[0])
