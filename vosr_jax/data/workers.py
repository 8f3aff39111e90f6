"""How the processes that make batches behave."""

import os
import signal
import threading
import time

_LOOK_AFTER_PARENT_SECONDS = 2.0


def use_one_core() -> None:
    """Give this process's picture operations and matrix products one thread each."""
    import cv2
    from threadpoolctl import threadpool_limits

    cv2.setNumThreads(1)
    threadpool_limits(1)


def start_worker(parent: int, worker: int, workers: int) -> None:
    """Prepare a worker process.

    Args:
      parent: process id of the program that reads the batches.
      worker, workers: number of this worker, and of all.
    """
    # The workers are the parallelism.
    use_one_core()
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
