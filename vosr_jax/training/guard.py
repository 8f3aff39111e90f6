"""Watches the losses: skipped updates and spikes are written down, and too many end the run."""

import json
import math
import statistics
from collections import deque
from pathlib import Path

import jax
import numpy as np

from vosr_jax.errors import UserError
from vosr_jax.training.log import say

# A spike is this many typical deviations above the median of as many latest losses.
_DEVIATIONS, _WINDOW, _ENOUGH = 8.0, 100, 20


class UpdateGuard:
    """Reads every step's loss, one step behind the devices, so that they never wait for it.

    What it finds goes to incidents.jsonl, a line each: kind ("skipped" or "spike"), step, loss,
    and the indices of the samples to blame, which `vosr data inspect --indices` makes again.

    Args:
      folder: the workdir.
      batch_size: pairs a step.
      limit: so many skipped updates in a row end the run.
    """

    def __init__(self, folder: Path, batch_size: int, limit: int):
        self._file = folder / "incidents.jsonl"
        self._batch_size, self._limit = batch_size, limit
        self._pending: tuple[int, dict[str, jax.Array]] | None = None
        self._losses: deque[float] = deque(maxlen=_WINDOW)
        self._in_a_row = 0

    def see(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Take note of a step that was started, and look at the one before.

        Raises:
          UserError: too many updates in a row were skipped.
        """
        self.finish()
        self._pending = step, metrics

    def finish(self) -> None:
        """Look at the latest step too; it is waited for."""
        if self._pending is None:
            return
        (step, metrics), self._pending = self._pending, None
        loss = float(metrics["loss"])
        if float(metrics["skipped"]):
            self._skipped(step, loss, np.asarray(metrics["loss_rows"]))
            return
        self._in_a_row = 0
        if len(self._losses) >= _ENOUGH:
            usual = statistics.median(self._losses)
            spread = statistics.median(abs(one - usual) for one in self._losses)
            if loss > usual + _DEVIATIONS * 1.4826 * spread and spread > 0:
                rows = np.asarray(metrics["loss_rows"])
                self._write("spike", step, loss, np.argsort(-rows)[:4])
                say(f"step {step}: loss {loss:.4g} is far above the usual {usual:.4g}")
        self._losses.append(loss)

    def _skipped(self, step: int, loss: float, rows: np.ndarray) -> None:
        bad = np.flatnonzero(~np.isfinite(rows))
        self._write("skipped", step, loss, bad if len(bad) else np.arange(len(rows)))
        self._in_a_row += 1
        say(f"step {step}: loss or gradient is not finite; the update is skipped ({self._file})")
        if self._in_a_row >= self._limit:
            raise UserError(
                f"{self._in_a_row} updates in a row were not finite; {self._file} names the "
                "samples. Lower optimizer.learning_rate or look at the data, and run again: it "
                "goes on from the newest checkpoint"
            )

    def _write(self, kind: str, step: int, loss: float, rows: np.ndarray) -> None:
        if jax.process_index():
            return
        first = (step - 1) * self._batch_size
        entry = {
            "kind": kind,
            "step": step,
            "loss": loss if math.isfinite(loss) else str(loss),
            "indices": [first + int(row) for row in rows],
        }
        with self._file.open("a") as file:
            file.write(json.dumps(entry) + "\n")
