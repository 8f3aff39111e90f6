"""Lines for the terminal, also kept with timestamps in the run's log file."""

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
    """Print a line to standard error and log it, on the first process alone."""
    if jax.process_index() == 0:
        print(text, file=sys.stderr, flush=True)
        note(text)


@contextlib.contextmanager
def keep_log(folder: Path) -> Iterator[None]:
    """Append the lines said inside the block to folder/train.log.

    If the block ends with an error, its message is logged too. A full disk ends the log, not the
    run.

    Args:
      folder: the run's folder, on a disk.
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
    """Add a line with date and time to the open log, if one is open."""
    now = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    for file in _open:
        with contextlib.suppress(OSError, ValueError):
            file.write(f"{now}  {text}\n")
