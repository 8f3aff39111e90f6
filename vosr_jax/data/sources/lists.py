"""Text files as sources: lists of image files, and the official format, which names datasets.

In the official format a line is `path[, number]`; blank lines and those that start with # are
skipped. With `dataset_type: txt` a path names a list of image files, and the number says how often
the list is repeated. With `webdataset` it names a folder of tar shards, and the number is its
sampling weight. Here the kind of the paths decides between the two meanings. (official:
train_vosr.py load_dataset_config, dataloaders/realsr_dataset.py)
"""

import codecs
import os
from collections.abc import Callable, Sequence

from vosr_jax.data.pictures import is_picture_path
from vosr_jax.data.sources.files import FileSource
from vosr_jax.data.sources.patterns import split_outside_braces
from vosr_jax.data.sources.source import ConcatenatedSource, Names, Source
from vosr_jax.data.sources.storage import absolute, exists, is_absolute, join, read_file
from vosr_jax.errors import UserError

# Number of evenly spread names that are looked for to find a list's base folder. Looking for a
# million files would take minutes on a network file system.
_LOOKED_FOR = 64
_MOST_LOOKED_FOR = 10_000

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_lines(path: str) -> list[str]:
    """Read a text file's lines, stripped and without blank ones.

    The byte order mark that editors write is not part of the first line; UTF-16, which it marks, is
    read too. Names may contain any bytes.

    Raises:
      UserError: it cannot be read.
    """
    try:
        data = read_file(path)
    except OSError as error:
        raise UserError(f"data.sources: {path} cannot be read ({error.strerror})") from error
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    text = data.decode(encoding, "replace" if encoding == "utf-16" else "surrogateescape")
    # Not splitlines: a name may contain characters that Unicode counts as line ends.
    lines = text.removeprefix("\ufeff").replace("\r", "\n").split("\n")
    return [line for line in map(str.strip, lines) if line]


def base_folder(path: str, names: Sequence[str]) -> str:
    """Find the folder that the relative names in a text file start from.

    It is the text file's folder or, if that has fewer of the names, the working folder. It is the
    same for the whole list, even if single names are missing.

    Args:
      path: path of the text file.
      names: the names in it.

    Returns:
      An absolute path; "" if no name is relative.
    """
    relative = [name for name in names if not is_absolute(name)]
    if not relative:
        return ""
    own, working = os.path.dirname(absolute(path)), os.getcwd()
    for count in (_LOOKED_FOR, _MOST_LOOKED_FOR):
        looked_for = relative[:: -(-len(relative) // count)]
        here, there = (
            sum(exists(join(folder, name)) for name in looked_for) for folder in (own, working)
        )
        if here or there:
            return own if here >= there else working
    return own


def without_comments(path: str, lines: Sequence[str]) -> list[str]:
    """Drop the lines that begin with #.

    Such a line is kept if it names an image that exists.
    """
    plain = [line for line in lines if not line.startswith("#")]
    marked = [line for line in lines if line.startswith("#") and is_picture_path(line)]
    if not marked:
        return plain
    base = base_folder(path, plain or marked)
    there = {line for line in marked if exists(join(base, line))}
    return [line for line in lines if not line.startswith("#") or line in there]


def text_sources(
    path: str,
    open_shards: Callable[[str, float], Source],
    names_shards: Callable[[str], bool],
    weight: float = 1.0,
) -> tuple[Source, ...]:
    """Open the sources that a text file names.

    Args:
      path: a list of image files, or a file in the official format. Relative paths in it start
        from `base_folder`; officially, from the working directory alone.
      open_shards: opens (folder or pattern of shards, weight).
      names_shards: whether a path names a folder or shards.
      weight: total weight of everything that the file names.

    Returns:
      One source for lists of images, with every list repeated by its number; or one source per
      folder, which share the weight in proportion to their numbers.

    Raises:
      UserError: the file is empty, a line is malformed, or the two meanings are mixed.
    """
    lines = without_comments(path, read_lines(path))
    if not lines:
        raise UserError(f"data.sources: {path} names nothing; write a path on every line")
    if is_picture_path(lines[0]):
        return (_list_source(path, lines, weight),)
    entries = [_entry(path, line) for line in lines]
    root = base_folder(path, [name for name, _ in entries])
    named = [(join(root, name), number) for name, number in entries]
    if any(is_picture_path(name) for name, _ in named):
        raise UserError(
            f"data.sources: {path} names pictures among other things; in a list of pictures every "
            "line is the path of one, without a number"
        )
    shards = [names_shards(name) for name, _ in named]
    for (name, _), line, opened in zip(named, lines, shards, strict=True):
        # Shards are looked for when they are opened, since a name may be a pattern.
        if not opened and not exists(name):
            raise UserError(f"data.sources: {path} names {line!r}, but there is no {name}")
    if all(shards):
        total = sum(number for _, number in named)
        return tuple(open_shards(name, weight * number / total) for name, number in named)
    if any(shards):
        raise UserError(
            f"data.sources: {path} names both folders and lists of files, and the number on a "
            "line means a weight for the first, a repetition for the second; make two files"
        )
    parts: list[Source] = []
    for name, number in named:
        # Weights inside are ignored; a list's weight is its length times its number.
        files = without_comments(name, read_lines(name))
        parts += [_list_source(name, files, 1.0)] * number
    return (ConcatenatedSource(path, weight, tuple(parts)),)


def _list_source(path: str, files: list[str], weight: float) -> FileSource:
    if not files:
        raise UserError(f"data.sources: {path} names no pictures")
    return FileSource(path, weight, base_folder(path, files), Names(files), listed=True)


def _entry(path: str, line: str) -> tuple[str, int]:
    name, *numbers = (part.strip() for part in split_outside_braces(line))
    if not numbers:
        return name, 1
    if len(numbers) > 1 or not numbers[0].isdecimal() or int(numbers[0]) < 1:
        raise UserError(
            f"data.sources: {path}: {line!r} should be a path, or a path, a comma and a whole "
            "number above 0"
        )
    return name, int(numbers[0])
