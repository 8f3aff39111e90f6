"""Text files that list names, and the folder that the names are relative to."""

import codecs
import os
from collections.abc import Sequence

from vosr_jax.data.pictures import is_picture_path
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
