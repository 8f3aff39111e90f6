"""Progress of a run: one updating line on a terminal, else one line per photo."""

import sys
import threading
import time

from vosr_jax.commands import interrupts


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
