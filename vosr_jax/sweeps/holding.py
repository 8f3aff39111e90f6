"""Locks that admit one process at a time to each trial of a shared sweep folder.

On a disk this is a file lock, which the system releases if its process dies. In a bucket it is a
lease that its holder renews; it expires after a minute of silence.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from vosr_jax.errors import UserError
from vosr_jax.files import is_remote, to_path
from vosr_jax.training.run_lock import RunLock

_ASK_AGAIN = 10.0


@contextlib.contextmanager
def held(workdir: str | os.PathLike, name: str, *, wait: bool) -> Iterator[list[int] | None]:
    """Hold a trial's lock.

    Args:
      workdir: of the sweep.
      name: of the trial.
      wait: whether to wait until it is free.

    Yields:
      None if another process has it; else file descriptors that keep the lock for a child.

    Raises:
      UserError: the folder cannot be written.
    """
    if is_remote(workdir):
        with _leased(workdir, name, wait=wait) as mine:
            yield [] if mine else None
        return
    try:
        Path(workdir).mkdir(parents=True, exist_ok=True)
        file = (Path(workdir) / f"{name}.lock").open("w")
    except OSError as error:
        raise UserError(f"{workdir} can't be written ({error.strerror}); choose another") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield None
            return
        yield [file.fileno()]


@contextlib.contextmanager
def _leased(workdir: str | os.PathLike, name: str, *, wait: bool) -> Iterator[bool]:
    while True:
        try:
            lock = RunLock(to_path(workdir) / "locks" / name)
        except UserError:
            if not wait:
                yield False
                return
            time.sleep(_ASK_AGAIN)
            continue
        break
    try:
        yield True
    finally:
        lock.release()
