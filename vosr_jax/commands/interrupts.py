"""Ctrl-C ends the command with code 130, also where a library would swallow it.

While a command starts, Python's KeyboardInterrupt may be raised inside a library's import or a
callback that ignores exceptions. Then the process ends at once: nothing is being written yet.
Later the exception is raised as usual, remembered, and raised again where it was swallowed.
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
    """Within, Ctrl-C ends the process at once, until `running` is called."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    if before in (signal.SIG_IGN, None):
        # Started by nohup, or in the background by a shell: it is to be left alone.
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
    """From here on Ctrl-C raises KeyboardInterrupt."""
    _state["starting"] = False
    check()


def check() -> None:
    """Raise KeyboardInterrupt again that something has swallowed, in the main thread."""
    main = threading.current_thread() is threading.main_thread()
    if _state["interrupted"] and main:
        raise KeyboardInterrupt


def was_interrupted() -> bool:
    """Whether Ctrl-C was pressed, whatever came of it."""
    return bool(_state["interrupted"])
