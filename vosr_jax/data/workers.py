"""Worker processes that make batches: their start, their shared memory and their end.

The shared memory that passes batches is a file system in memory, /dev/shm. A container gets 64 MB
of it by default. A worker that writes more is killed by the system without a message.
"""

import os
import re
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import cv2
from threadpoolctl import threadpool_limits

from vosr_jax.errors import UserError

_LOOK_AFTER_PARENT_SECONDS = 2.0
_FOLDER = "/dev/shm"
_CHANNELS = 3
# The small arrays of a batch, one or two pages each.
_SMALL_BYTES = 1 << 15


def use_one_core() -> None:
    """Limit this process's image operations and matrix products to one thread each."""

    cv2.setNumThreads(1)
    threadpool_limits(1)


def start_worker(parent: int, worker: int, workers: int) -> None:
    """Prepare a worker process.

    Args:
      parent: process id of the program that reads the batches.
      worker, workers: index of this worker, and number of workers.
    """
    # Parallelism comes from the number of workers.
    use_one_core()
    # A terminal or a scheduler signals the whole group. The parent decides when to stop, since it
    # may need batches until its checkpoint is written.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, args=(parent,), daemon=True).start()


def _leave_with_parent(parent: int) -> None:
    """End this process once its parent has been killed; nothing else would end it."""
    while os.getppid() == parent:
        time.sleep(_LOOK_AFTER_PARENT_SECONDS)
    os._exit(1)


class OutOfMemory:
    """Tells whether the kernel has killed a process for lack of memory since this was created."""

    # Counters of the container and of the machine; either may be missing.
    _COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))

    def __init__(self):
        self._before = [self._kills(file) for file in self._COUNTERS]

    def __call__(self) -> bool:
        now = [self._kills(file) for file in self._COUNTERS]
        return any(after > before for after, before in zip(now, self._before, strict=True))

    @staticmethod
    def _kills(file: Path) -> int:
        try:
            found = re.search(r"^oom_kill (\d+)$", file.read_text(), re.MULTILINE)
        except OSError:
            return 0
        return int(found[1]) if found else 0


def why_a_worker_died(error: Exception, out_of_memory: OutOfMemory) -> str | None:
    """Explain Grain's error about a worker that ended, in one sentence; None for other errors."""
    found = re.search(r"exit code (-?\d+)", str(error))
    if found is None:
        return None
    code = int(found[1])
    if code == -signal.SIGKILL and out_of_memory():
        return (
            "a data worker was killed by the kernel because memory ran out; lower data.workers or "
            "data.cache_bytes, or allow the job more memory"
        )
    if code == -signal.SIGKILL:
        return (
            "a data worker was killed from outside (SIGKILL); where nobody did so, memory ran "
            "out: lower data.workers or data.cache_bytes"
        )
    if code == -signal.SIGBUS:
        return (
            "a data worker ended with SIGBUS, as happens where /dev/shm is full; enlarge it, or "
            "lower data.workers"
        )
    if code < 0:
        return f"a data worker ended with {_name(-code)}; what it said stands above"
    return f"a data worker ended with exit code {code}; what it said stands above"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


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
