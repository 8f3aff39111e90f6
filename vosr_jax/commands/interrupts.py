"""Ctrl-C handling: the command ends with code 130 even if a library swallows the interrupt.

While a command starts, KeyboardInterrupt may be raised inside a library's import or a callback that
ignores exceptions. In this phase the process ends at once, since nothing is being written yet.
Later the exception is raised as usual and recorded, and raised again if it was swallowed.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

_state = {"starting": False, "interrupted": False}


def _on_interrupt(number, frame) -> None:
    if _state["starting"]:
        with contextlib.suppress(OSError):
            os.write(2, b"error: interrupted from the keyboard\n")
        os._exit(130)
    _state["interrupted"] = True
    raise KeyboardInterrupt


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Make Ctrl-C end the process at once inside the block, until `running` is called."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    if before in (signal.SIG_IGN, None):
        # Started by nohup or in a shell's background: SIGINT must stay ignored.
        yield
        return
    signal.signal(signal.SIGINT, _on_interrupt)
    _state.update(starting=True, interrupted=False)
    try:
        yield
    finally:
        _state["starting"] = False
        signal.signal(signal.SIGINT, before)


def running() -> None:
    """Make Ctrl-C raise KeyboardInterrupt from now on."""
    _state["starting"] = False
    check()


def check() -> None:
    """Raise a swallowed KeyboardInterrupt again, in the main thread."""
    main = threading.current_thread() is threading.main_thread()
    if _state["interrupted"] and main:
        raise KeyboardInterrupt


def was_interrupted() -> bool:
    """Whether Ctrl-C was pressed, even if the exception was swallowed."""
    return bool(_state["interrupted"])
