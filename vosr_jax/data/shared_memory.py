"""Check of the shared memory through which worker processes pass batches.

It is a file system in memory, /dev/shm. A container gets 64 MB of it by default. A worker that
writes more is killed by the system without a message.
"""

import os
import re
from collections.abc import Mapping

from vosr_jax.errors import UserError

_FOLDER = "/dev/shm"
_CHANNELS = 3
# The small arrays of a batch, one or two pages each.
_SMALL_BYTES = 1 << 15


def bytes_needed(workers: int, buffers: int, rows: int, crop_size: int) -> int:
    """Compute the most bytes of shared memory that one program's batches take.

    Args:
      workers: number of worker processes.
      buffers: batches that Grain is set to buffer per worker.
      rows: pairs per batch in this program.
      crop_size: side of a crop, pixels.
    """
    batch = 2 * rows * crop_size * crop_size * _CHANNELS + _SMALL_BYTES
    # Per worker, `buffers` batches are in its queue and as many in the program, one is being
    # written and one waits for the queue. One more is being read. Measured with 1, 2 and 4 buffers.
    return (workers * (2 * buffers + 2) + 1) * batch


def check_shared_memory(
    workers: int,
    buffers: int,
    rows: int,
    crop_size: int,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Refuse settings whose batches do not fit, before a worker dies of it.

    Args:
      workers, buffers, rows, crop_size: see `bytes_needed`.
      environment: environment variables; Slurm's give the number of such programs on this host.

    Raises:
      UserError: the batches do not fit.
    """
    programs = _programs_here(environment)
    free = _free_bytes(whole=programs > 1)
    if free is None or not workers:
        return
    needed = programs * bytes_needed(workers, buffers, rows, crop_size)
    if needed <= free:
        return
    fitting = [
        count
        for count in range(1, workers)
        if programs * bytes_needed(count, buffers, rows, crop_size) <= free
    ]
    lower = f", or set data.workers to {fitting[-1]}" if fitting else ""
    several = f" in each of {programs} programs" if programs > 1 else ""
    raise UserError(
        f"data.workers={workers} with batches of {rows} pairs of {crop_size} px{several} need "
        f"{_megabytes(needed)} MB of shared memory, and {_FOLDER} has {_megabytes(free)} MB; "
        f"enlarge it (docker run --shm-size={-(-needed // 10**9)}g; in Kubernetes an emptyDir of "
        f"medium Memory on {_FOLDER}){lower}"
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f}"


def _free_bytes(*, whole: bool) -> int | None:
    """Free bytes, or with `whole` all bytes; None if the file system is missing (on a Mac).

    `whole` is for programs that start together: one may find the others' batches there.
    """
    try:
        about = os.statvfs(_FOLDER)
    except OSError:
        return None
    return (about.f_blocks if whole else about.f_bavail) * about.f_frsize


def _programs_here(environment: Mapping[str, str]) -> int:
    """Number of tasks that Slurm starts per node; 1 without Slurm. Formats: 8 and 8(x2),4."""
    tasks = re.findall(r"(\d+)(?:\(x\d+\))?", environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
    return max(map(int, tasks), default=1)
