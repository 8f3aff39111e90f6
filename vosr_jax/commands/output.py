"""Output of the command: printing that never raises, progress, and why a start takes long.

Printing goes on after a closed pipe, a full disk, or a name that is not UTF-8.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from vosr_jax.commands import interrupts
from vosr_jax.compilation_cache import folder_in_use


class _Lenient:
    """A stream whose writes never raise; unencodable text is escaped, a lost stream is dropped."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text and escape characters that the stream's encoding lacks."""
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            coding = self._stream.encoding or "utf-8"
            with self._quietly():
                self._stream.write(text.encode(coding, "backslashreplace").decode(coding))
        except (OSError, ValueError):
            self._lose()
        return len(text)

    def flush(self) -> None:
        """Flush; drop the stream if that fails."""
        with self._quietly():
            self._stream.flush()

    @contextlib.contextmanager
    def _quietly(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):
            self._lose()

    def _lose(self) -> None:
        """Redirect the stream to os.devnull, also for the interpreter's last flush."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def lenient() -> Iterator[None]:
    """Make printing to stdout and stderr never raise inside the block."""
    before = sys.stdout, sys.stderr
    wrapped: list[Any] = [_Lenient(stream) for stream in before if stream is not None]
    if len(wrapped) == 2:
        sys.stdout, sys.stderr = wrapped
    try:
        yield
    finally:
        for stream in wrapped:
            stream.flush()
        sys.stdout, sys.stderr = before


class Progress:
    """Shows the photos at work and the time left of the whole run. It is thread-safe.

    Args:
      weights: {photo: its part of the work, in any unit}.
    """

    def __init__(self, weights: dict[str, float]):
        self._weights = weights
        self._shares: dict[str, float] = {}
        self._done = 0
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._shows = sys.stderr.isatty()

    def update(self, name: str, share: float) -> None:
        """Set the finished share of a photo, 0 to 1."""
        interrupts.check()
        with self._lock:
            self._shares[name] = share
            if self._shows:
                print(f"\r\x1b[K{self._line(name)}", end="", file=sys.stderr, flush=True)

    def end(self, name: str, line: str, *, failed: bool = False) -> None:
        """Mark a photo as finished or failed and print its final line."""
        interrupts.check()
        with self._lock:
            self._shares[name] = 1.0
            self._done += 1
            count = len(self._weights)
            left = "" if self._done == count else self._left()
            place = f"[{self._done}/{count}] " if count > 1 and not failed else ""
            self._print(line if failed else f"{place}{line}{left}", failed)

    def say(self, line: str) -> None:
        """Print another line for the user."""
        with self._lock:
            self._print(line, True)

    def _print(self, line: str, failed: bool) -> None:
        if self._shows:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        print(line, file=sys.stderr if failed else sys.stdout, flush=True)

    def _line(self, name: str) -> str:
        number = min(self._done + 1, len(self._weights))
        return f"[{number}/{len(self._weights)}] {name} {self._shares[name]:.0%}{self._left()}"

    def _left(self) -> str:
        total = sum(self._weights.values())
        done = sum(self._weights[name] * share for name, share in self._shares.items())
        if done <= 0:
            return ""
        spent = time.monotonic() - self._started
        return f", {duration(spent * (total / done - 1))} left"


def duration(seconds: float) -> str:
    """Format seconds as 1:02:03, or 2:03 below an hour."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


@contextlib.contextmanager
def told_of_compilation(say: Callable[[str], None]) -> Iterator[None]:
    """Say once inside the block that programs are compiled, if some are not in the cache."""
    # Late: the command line starts without JAX.
    from jax import monitoring

    told: list[str] = []

    def listen(event: str, **_) -> None:
        if event == "/jax/compilation_cache/cache_misses" and not told:
            told.append(event)
            say(f"compiling for this model and device, once; kept in {folder_in_use()}")

    monitoring.register_event_listener(listen)
    try:
        yield
    finally:
        monitoring.unregister_event_listener(listen)
