"""Where every second of a run's wall time went, restarts included."""

import time
from pathlib import Path

import jax

from vosr_jax.training.checkpoints import write_json
from vosr_jax.weights.json_file import read_json_object

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

    def __init__(self, folder: Path, step: int):
        self._file = folder / "goodput.json"
        self.seconds = dict.fromkeys(KINDS, 0.0)
        self._reached = 0
        self._mark = time.time()
        if self._file.exists():
            before = read_json_object(self._file)
            self.seconds |= before["seconds"]
            self._reached = before["step"]
            self.seconds["down"] += max(self._mark - before["until"], 0.0)
        self._step = step

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
        """Put the ledger on disk, from the first process alone."""
        if jax.process_index() == 0:
            reached = max(self._reached, self._step)
            content = {"seconds": self.seconds, "until": self._mark, "step": reached}
            write_json(self._file, content)
