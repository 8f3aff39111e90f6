"""Printing that never raises: on a closed pipe, a full disk, or a name that is not UTF-8."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


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
