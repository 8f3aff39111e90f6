"""Where every second of a run's wall time went, restarts included."""

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
    """A ledger in goodput.json whose kinds sum to the time since the run's very first start.

    start: from a process's start to its first batch; compile: its first step; train: steps that
    count; data: waiting for batches; save: checkpoints, as far as the loop waits for them; look:
    pictures and validation; repeat: steps done before that a kill has lost; down: between two
    processes, and what a killed one did since it last wrote.

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
        """Go on with the ledger of the processes before; one that cannot be read is begun anew."""
        try:
            if not self._file.exists():
                return
            before = json.loads(self._file.read_text())
            seconds, reached, until = before["seconds"], int(before["step"]), before["until"]
            seconds = {kind: float(seconds[kind]) for kind in KINDS}
            seconds["down"] += max(self._mark - float(until), 0.0)
        # Also what the network raises: no ledger is worth a run.
        except Exception as error:
            say(f"{self._file} cannot be read ({reason_of(error)}); the ledger begins anew")
            return
        self.seconds, self._reached = seconds, reached

    def lap(self, kind: str, step: int | None = None) -> float:
        """The time since the last call goes to a kind; the seconds that it was."""
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
        """Of all wall time, what went into steps that count."""
        total = sum(self.seconds.values())
        return self.seconds["train"] / total if total else 0.0

    def write(self) -> None:
        """Put the ledger on disk, from the first process alone; a failure is said once."""
        if jax.process_index() == 0:
            reached = max(self._reached, self._step)
            content = {"seconds": self.seconds, "until": self._mark, "step": reached}
            self._attempt(str(self._file), lambda: write_json(self._file, content))
