"""Behaviour of the worker processes that make batches."""

import os
import re
import signal
import threading
import time
from pathlib import Path

import cv2
from threadpoolctl import threadpool_limits

_LOOK_AFTER_PARENT_SECONDS = 2.0


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
