"""A ledger of a run's wall time, restarts included."""

import json
import time

import jax
from etils import epath

from vosr_jax.console import say
from vosr_jax.files.atomic import write_json
from vosr_jax.files.attempts import Attempts
from vosr_jax.files.paths import reason_of

KINDS = ("start", "compile", "train", "data", "save", "look", "repeat", "down")


class Goodput:
    """A ledger in goodput.json whose kinds sum to the time since the run's first start.

    start: from a process's start to its first batch; compile: its first step; train: steps that
    count; data: waiting for batches; save: checkpoints, as far as the loop waits for them; look:
    samples and validation; repeat: steps that a kill has lost and that are done again; down:
    between two processes, and a killed process's time since its last write.

    Args:
      folder: the workdir.
      step: at which this process begins.
    """

    def __init__(self, folder: epath.Path, step: int):
        self._file = epath.Path(folder) / "goodput.json"
        self.seconds = dict.fromkeys(KINDS, 0.0)
        self._reached = 0
        self._mark = time.time()
        self._step = step
        self._attempt = Attempts(say)
        self._take_up()

    def _take_up(self) -> None:
        """Continue the ledger of earlier processes; start a new one if it cannot be read."""
        try:
            if not self._file.exists():
                return
            before = json.loads(self._file.read_text())
            seconds, reached, until = before["seconds"], int(before["step"]), before["until"]
            seconds = {kind: float(seconds[kind]) for kind in KINDS}
            seconds["down"] += max(self._mark - float(until), 0.0)
        # Any error, also of the network: the ledger must not end the run.
        except Exception as error:
            say(f"{self._file} cannot be read ({reason_of(error)}); the ledger begins anew")
            return
        self.seconds, self._reached = seconds, reached

    def lap(self, kind: str, step: int | None = None) -> float:
        """Add the time since the last call to a kind; return it in seconds."""
        now = time.time()
        passed, self._mark = now - self._mark, now
        if step is not None:
            self._step = step
            if kind == "train" and step <= self._reached:
                kind = "repeat"
        self.seconds[kind] += max(passed, 0.0)
        return passed

    @property
    def share(self) -> float:
        """Share of all wall time spent in steps that count."""
        total = sum(self.seconds.values())
        return self.seconds["train"] / total if total else 0.0

    def write(self) -> None:
        """Write the ledger, on process 0 only; a failure is reported once."""
        if jax.process_index() == 0:
            reached = max(self._reached, self._step)
            content = {"seconds": self.seconds, "until": self._mark, "step": reached}
            self._attempt(str(self._file), lambda: write_json(self._file, content))
