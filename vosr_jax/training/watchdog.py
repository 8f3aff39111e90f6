"""A run that hangs says where, and ends, instead of costing money in silence."""

import faulthandler
import os
import sys
import threading
import time

import jax


class Watchdog:
    """Ends the process if no step finishes for too long; first it prints every thread's stack.

    In a job of several processes each tells the others its step, so that the message can name
    those that lag behind. That a process has died is noticed sooner (training/processes.py).

    Args:
      seconds: without a finished step; 0 never ends anything.
    """

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._seen = time.monotonic()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        if seconds:
            self._thread.start()

    def see(self, step: int) -> None:
        """A step was finished."""
        self._seen = time.monotonic()
        client = _client()
        if client is not None and self._seconds:
            client.key_value_set(f"vosr/step/{jax.process_index()}", str(step), True)

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(self, *_) -> None:
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(min(self._seconds / 4, 5.0)):
            if time.monotonic() - self._seen > self._seconds:
                _end(self._seconds)


def _end(seconds: float) -> None:
    text = f"no step finished for {seconds:.0f} s (train.hang_seconds)"
    behind = _behind()
    if behind:
        text += f"; behind the others: {behind}"
    print(f"{text}; every thread's stack follows, then this process ends", file=sys.stderr)
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
    sys.stderr.flush()
    os._exit(1)


def _behind() -> str:
    """The processes whose newest step is not the newest of all."""
    client = _client()
    if client is None:
        return ""
    steps = {key.rpartition("/")[2]: int(v) for key, v in client.key_value_dir_get("vosr/step/")}
    for number in range(jax.process_count()):
        steps.setdefault(str(number), 0)
    return ", ".join(
        f"process {number} at step {step}"
        for number, step in sorted(steps.items())
        if step < max(steps.values())
    )


def _client():
    """The job's key-value store; JAX gives it no public name."""
    from jax._src import distributed

    return distributed.global_state.client
