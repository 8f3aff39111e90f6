"""Printing that never fails the work: a closed pipe, a full disk, a name that is no UTF-8."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class _Lenient:
    """A stream whose writes never raise; what cannot be shown is escaped, what is cut off ends."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, escaping what the stream's encoding has not."""
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
        """Flush, or give the stream up."""
        with self._quietly():
            self._stream.flush()

    @contextlib.contextmanager
    def _quietly(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):
            self._lose()

    def _lose(self) -> None:
        """Nobody reads any more: let the rest go nowhere, the interpreter's last flush too."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def lenient() -> Iterator[None]:
    """Within, printing to stdout and stderr never raises."""
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
