"""Lines for the person at the terminal, kept with times in the log file of a run."""

import contextlib
import datetime
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import jax

from vosr_jax.errors import UserError

NAME = "train.log"
_open: list[TextIO] = []


def say(text: str) -> None:
    """Print a line to standard error, on the first process alone, and note it in the log."""
    if jax.process_index() == 0:
        print(text, file=sys.stderr, flush=True)
        note(text)


@contextlib.contextmanager
def keep_log(folder: Path) -> Iterator[None]:
    """Write what is said while the block runs into folder/train.log, after what is there.

    Also the sentence with which the block ends, where it ends with an error. A disk that takes
    nothing more ends the log and not the run.

    Args:
      folder: of the run, on a disk.
    """
    try:
        file = (folder / NAME).open("a", buffering=1, encoding="utf-8")
    except OSError:
        yield
        return
    _open.append(file)
    try:
        yield
    except BaseException as error:
        kind = "error" if isinstance(error, UserError) else type(error).__name__
        note(f"{kind}: {error}")
        raise
    finally:
        _open.remove(file)
        with contextlib.suppress(OSError):
            file.close()


def note(text: str) -> None:
    """Add a line with the time of day to the open log; nothing happens where none is open."""
    now = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    for file in _open:
        with contextlib.suppress(OSError, ValueError):
            file.write(f"{now}  {text}\n")
