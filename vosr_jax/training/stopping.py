"""Stop requests: the first saves and ends the run, a second Ctrl-C ends it at once."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable

import jax
from jax.experimental import multihost_utils

# The exit code that shells give a program that Ctrl-C has ended.
_INTERRUPTED = 130


class StopRequest:
    """Record SIGTERM and SIGINT; the loop then saves and stops at the end of a step.

    If only one of several processes gets the signal, all of them agree on a step. A second SIGINT
    ends this process at once, even inside a compilation.

    Args:
      newest: gives the step from which the run would resume if it ended now, or None.

    Attributes:
      seen: whether the loop was told to stop.
    """

    def __init__(self, newest: Callable[[], int | None]):
        self._newest = newest
        self._noted = self.seen = False
        self._interrupts = 0
        self._alone = jax.process_count() == 1
        # Python runs handlers between two instructions of the main thread, which may be inside XLA
        # for minutes. This socket gets a signal's number at once.
        self._wakes, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._before = {signal.SIGINT: signal.signal(signal.SIGINT, self._pass)}
        if self._alone:
            # In a job of several processes JAX handles SIGTERM, so that they agree on a step.
            self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._pass)
        self._wakeup = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _pass(self, *_) -> None:
        """Do nothing; the thread handles the signal."""

    def _listen(self) -> None:
        while numbers := self._wakes.recv(64):
            for number in numbers:
                if number == signal.SIGINT:
                    self._interrupted()
                elif number == signal.SIGTERM:
                    self._noted = True

    def _interrupted(self) -> None:
        self._interrupts += 1
        if self._interrupts > 1:
            _tell(f"left at once; {self._outlook()}")
            os._exit(_INTERRUPTED)
        _tell(
            "interrupted: the run saves after this step and leaves; once more leaves at once, and "
            + self._outlook()
        )
        if self._alone:
            self._noted = True
        else:
            os.kill(os.getpid(), signal.SIGTERM)

    def _outlook(self) -> str:
        step = self._newest()
        if not step:
            return "nothing is saved yet, so that the same command begins anew"
        return f"the same command goes on from step {step}"

    def at(self, step: int) -> bool:
        """Whether to stop after this step."""
        if self._alone:
            self.seen = self._noted
        else:
            self.seen = multihost_utils.reached_preemption_sync_point(step)
        return self.seen

    def restore(self) -> None:
        """Restore the previous signal handlers."""
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._waker.close()
        self._thread.join()
        self._wakes.close()


def _tell(text: str) -> None:
    if jax.process_index() == 0:
        print(text, file=sys.stderr, flush=True)
