"""Watchdog that ends a hanging run and prints where it hangs."""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator

import jax

from vosr_jax.files.mirror import upload_before_leaving
from vosr_jax.training.processes import store

# Limit for compiling, previews and saving; their duration does not follow from a step's.
PHASE_SECONDS = 3600.0


class Watchdog:
    """End the process if nothing finishes in time; first print every thread's stack.

    A step must finish within `seconds`. Other work, marked with `phase`, may take longer. So may
    a step that compiles first (`begin`).

    In a job of several processes each publishes its step, and the message names those that lag
    behind. A dead process is noticed sooner (training/distributed.py).

    Args:
      seconds: limit without a finished step; 0 disables the watchdog.
      phase_seconds: limit for a phase, if that is longer.
    """

    def __init__(self, seconds: float, phase_seconds: float = PHASE_SECONDS):
        self._seconds = seconds
        self._longest = max(seconds, phase_seconds)
        # (start time, phase or None), replaced as one because the other thread reads it.
        self._state: tuple[float, str | None] = time.monotonic(), None
        self._step = 0
        self._closed = threading.Event()
        if seconds:
            # Two threads: a coordinator that does not answer must not keep the first from watching.
            for work in (self._watch, self._tell):
                threading.Thread(target=work, daemon=True).start()

    def see(self, step: int) -> None:
        """Record a finished step."""
        self._state, self._step = (time.monotonic(), None), step

    def begin(self, phase: str) -> None:
        """Start a phase that may take longer than a step; it lasts until a step is seen."""
        self._state = time.monotonic(), phase

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Mark work other than a step; the message names it."""
        self.begin(name)
        try:
            yield
        finally:
            self._state = time.monotonic(), None

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(self, *_) -> None:
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(min(self._seconds / 4, 5.0)):
            since, phase = self._state
            limit = self._seconds if phase is None else self._longest
            if time.monotonic() - since > limit:
                _end(limit, phase)

    def _tell(self) -> None:
        """Keep telling the other processes this one's newest step; no step waits for it."""
        told = 0
        while not self._closed.wait(min(self._seconds / 4, 5.0)):
            client, step = store(), self._step
            if client is None or step == told:
                continue
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                client.key_value_set(f"vosr/step/{jax.process_index()}", str(step), True)
                told = step


def _end(seconds: float, phase: str | None) -> None:
    text = f"no step finished for {seconds:.0f} s (train.hang_seconds)"
    if phase is not None:
        text = f"{phase} did not end for {seconds:.0f} s (train.hang_seconds, but an hour at least)"
    behind = _behind()
    if behind:
        text += f"; behind the others: {behind}"
    print(f"{text}; every thread's stack follows, then this process ends", file=sys.stderr)
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
    sys.stderr.flush()
    upload_before_leaving()
    os._exit(1)


def _behind() -> str:
    """The processes that lag behind the newest step, as text."""
    client = store()
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
