"""How far a run is: one line that moves on a terminal, else a line for every picture."""

import sys
import threading
import time

from vosr_jax.commands import interrupts


class Progress:
    """Shows pictures at work and the time left of the whole run. Safe to use from threads.

    Args:
      weights: {picture: its part of the work, in any unit}.
    """

    def __init__(self, weights: dict[str, float]):
        self._weights = weights
        self._shares: dict[str, float] = {}
        self._done = 0
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._shows = sys.stderr.isatty()

    def update(self, name: str, share: float) -> None:
        """A picture is finished to this share, 0 to 1."""
        interrupts.check()
        with self._lock:
            self._shares[name] = share
            if self._shows:
                print(f"\r\x1b[K{self._line(name)}", end="", file=sys.stderr, flush=True)

    def end(self, name: str, line: str, *, failed: bool = False) -> None:
        """A picture is finished or given up; the line stays."""
        interrupts.check()
        with self._lock:
            self._shares[name] = 1.0
            self._done += 1
            count = len(self._weights)
            left = "" if self._done == count else self._left()
            place = f"[{self._done}/{count}] " if count > 1 and not failed else ""
            self._print(line if failed else f"{place}{line}{left}", failed)

    def say(self, line: str) -> None:
        """Something else that the person should know."""
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
    """1:02:03, or 2:03 below an hour."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
