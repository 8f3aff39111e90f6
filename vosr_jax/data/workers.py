"""How the processes that make batches behave."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

_THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
_LOOK_AFTER_PARENT_SECONDS = 2.0


@contextlib.contextmanager
def single_threaded_children() -> Iterator[None]:
    """Processes started inside give numpy's matrix products one thread each."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update({name: "1" for name in _THREAD_VARIABLES})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def start_worker(parent: int, worker: int, workers: int) -> None:
    """Prepare a worker process.

    Args:
      parent: process id of the program that reads the batches.
      worker, workers: number of this worker, and of all.
    """
    import cv2

    # One core each: the workers are the parallelism.
    cv2.setNumThreads(1)
    # A terminal or a scheduler signals the whole group; the program decides when to stop, and
    # may need batches until its checkpoint is written.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, args=(parent,), daemon=True).start()


def _leave_with_parent(parent: int) -> None:
    """End this process once its parent has been killed; nobody else would."""
    while os.getppid() == parent:
        time.sleep(_LOOK_AFTER_PARENT_SECONDS)
    os._exit(1)
