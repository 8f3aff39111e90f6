"""The official program as the other side of a measurement."""

import json
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import jax

# The other side's threads go on turning for a moment when their work is done.
_REST = 0.5


class Official:
    """The other side, in a process of its own: a script, a Python, the official checkout."""

    def __init__(self, script: str, python: str, folder: Path, **options):
        path = Path(__file__).with_name(script)
        command = [python, str(path), str(folder.resolve()), json.dumps(options)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.facts = self._answer()

    def _answer(self) -> dict:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the official side ended; its message is above")
        return json.loads(line)

    def ask(self, do: str, **command) -> dict:
        """One command's answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **command}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def timed(official: Official, calls: dict[str, Callable], rounds: int) -> dict[str, float]:
    """Medians of alternating measurements: {"ours step": seconds, ...}.

    A side's turn is two calls, of which the second counts: in training step follows step, while
    after the other side's turn the system has taken freed memory away.
    """
    sides: dict[str, dict[str, Callable]] = {
        "ours": {what: lambda call=call: _seconds(call) for what, call in calls.items()},
        "official": {what: lambda what=what: official.ask(what)["seconds"] for what in calls},
    }
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for what in calls:
            for side, turns in sides.items():
                time.sleep(_REST)
                turns[what]()
                found.setdefault(f"{side} {what}", []).append(turns[what]())
    return {name: statistics.median(values) for name, values in found.items()}


def _seconds(call: Callable) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - begin
