"""Processes of one job act together: they compile, fail and stop at the same step.

For findings outside of steps, as in files, they agree through `worst_of_all`.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
from jax._src import distributed as jax_distributed
from jax.experimental import multihost_utils

from vosr_jax.errors import UserError
from vosr_jax.files.mirror import upload_before_leaving

# How long a process waits for the others to compile the step; a dead process ends the wait sooner.
COMPILE_SECONDS = 4 * 3600
# The exit code that shells give a program that Ctrl-C has ended.
_INTERRUPTED = 130
_BYTES = 600
_T = TypeVar("_T")


def store():
    """The job's key-value store, None in a job of one process; JAX gives it no public name."""
    return jax_distributed.global_state.client


def compiled_together(compile_program: Callable, *arguments: Any) -> Any:
    """Compile or load a program on every process before any process runs it.

    A running collective waits only seconds for the other processes. A slower host, or one without
    a cached program on its disk, may compile for minutes longer.
    """
    compiled = compile_program(*arguments)
    if jax.process_count() > 1:
        store().wait_at_barrier("vosr/compiled", COMPILE_SECONDS * 1000)
    return compiled


def worst_of_all(rank: int, sentence: str = "") -> tuple[int, str]:
    """The highest rank of any process, and that process's sentence; all processes wait.

    Args:
      rank: severity on this process, 0 to 255.
      sentence: the reason, cut after 600 bytes.
    """
    if jax.process_count() == 1:
        return rank, sentence
    own = np.zeros(_BYTES + 1, np.uint8)
    text = sentence.encode()[:_BYTES]
    own[0], own[1 : 1 + len(text)] = rank, np.frombuffer(text, np.uint8)
    everyone = np.asarray(multihost_utils.process_allgather(own))
    worst = everyone[everyone[:, 0].argmax()]
    return int(worst[0]), worst[1:].tobytes().rstrip(b"\0").decode(errors="ignore")


def refused_together(action: Callable[[], _T]) -> _T:
    """Run an action on all processes and return its result; if one refuses, all raise its reason.

    Raises:
      UserError: the action was refused on some process.
    """
    failure: UserError | None = None
    result = None
    try:
        result = action()
    except UserError as error:
        failure = error
    refused, sentence = worst_of_all(int(failure is not None), str(failure or ""))
    if failure is not None:
        raise failure
    if refused:
        raise UserError(sentence)
    return result  # type: ignore[return-value]


class SharedError(UserError):
    """An error that all processes raise at the same step, so that they may save together."""


@contextlib.contextmanager
def errors_of_one() -> Iterator[None]:
    """In a job, end this process at once on an error that is not shared; see `leave_alone`."""
    try:
        yield
    except SharedError:
        raise
    except Exception as error:
        if jax.process_count() > 1:
            leave_alone(error)
        raise


def leave_alone(error: Exception) -> NoReturn:
    """End this process of a job at once, for an error that the others do not have.

    A normal exit would wait for the others, which wait for this process inside a step. After this
    exit they notice the missing heartbeat within `distributed.HEARTBEAT_SECONDS`.
    """
    if isinstance(error, UserError):
        print(f"error: {error}", file=sys.stderr)
    else:
        traceback.print_exception(error)
    sys.stderr.flush()
    upload_before_leaving()
    os._exit(1)


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
