"""Watch every step's loss; too many skipped updates in a row end the run."""

import json
import math
import statistics
from collections import deque
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from vosr_jax.console import say
from vosr_jax.diffusion.noise import columns_index
from vosr_jax.files.atomic import Attempts
from vosr_jax.training.processes import SharedError

# A spike is _DEVIATIONS typical deviations above the median of the latest losses, _WINDOW of them
# or at least _ENOUGH.
_DEVIATIONS, _WINDOW, _ENOUGH = 8.0, 100, 20
# Metrics read at every step; the rows are read only if something is wrong.
_READ = ("loss", "skipped", "notes")


class UpdateGuard:
    """Read every step's loss, one step behind the devices, so that they never wait for it.

    Incidents go to incidents.jsonl, one line each: kind ("skipped" or "spike"), step, loss, and
    the indices of the suspect samples, which `vosr data inspect --indices` makes again.

    Args:
      folder: the workdir.
      limit: number of skipped updates in a row that ends the run.
      judge: called with the step's notes, if it has any.
    """

    def __init__(
        self, folder: Path, limit: int, judge: Callable[[np.ndarray], None] = lambda notes: None
    ):
        self._file = folder / "incidents.jsonl"
        self._limit, self._judge = limit, judge
        self._pending: tuple[int, dict[str, jax.Array]] | None = None
        self._losses: deque[float] = deque(maxlen=_WINDOW)
        self._in_a_row = 0
        self._attempt = Attempts(say)

    def see(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Register a started step and check the one before.

        Raises:
          SharedError: too many updates in a row were skipped, or the judge raises it.
        """
        self.finish()
        self._pending = step, metrics
        for name in _READ:
            if name in metrics:
                metrics[name].copy_to_host_async()

    def finish(self) -> None:
        """Wait for the latest step and check it too."""
        if self._pending is None:
            return
        (step, metrics), self._pending = self._pending, None
        read = jax.device_get({name: metrics[name] for name in _READ if name in metrics})
        if "notes" in read:
            self._judge(read["notes"])
        loss = float(read["loss"])
        if read["skipped"]:
            self._skipped(step, loss, metrics)
            return
        self._in_a_row = 0
        if len(self._losses) >= _ENOUGH:
            usual = statistics.median(self._losses)
            spread = statistics.median(abs(one - usual) for one in self._losses)
            if loss > usual + _DEVIATIONS * 1.4826 * spread and spread > 0:
                worst = np.argsort(-np.asarray(metrics["loss_rows"]))[:4]
                self._write("spike", step, loss, metrics, worst)
                say(f"step {step}: loss {loss:.4g} is far above the usual {usual:.4g}")
        self._losses.append(loss)

    def _skipped(self, step: int, loss: float, metrics: dict[str, jax.Array]) -> None:
        rows = np.asarray(metrics["loss_rows"])
        bad = np.flatnonzero(~np.isfinite(rows))
        self._write("skipped", step, loss, metrics, bad if len(bad) else np.arange(len(rows)))
        self._in_a_row += 1
        say(f"step {step}: loss or gradient is not finite; the update is skipped (incidents.jsonl)")
        if self._in_a_row >= self._limit:
            raise SharedError(
                f"{self._in_a_row} updates in a row were not finite; the workdir's "
                "incidents.jsonl names the samples. Lower optimizer.learning_rate or look at the "
                "data, and run again: it goes on from the newest checkpoint"
            )

    def _write(
        self, kind: str, step: int, loss: float, metrics: dict[str, jax.Array], rows: np.ndarray
    ) -> None:
        if jax.process_index():
            return
        indices = columns_index(metrics)[rows]
        entry = {
            "kind": kind,
            "step": step,
            "loss": loss if math.isfinite(loss) else str(loss),
            "indices": indices.tolist(),
        }

        def append() -> None:
            with self._file.open("a") as file:
                file.write(json.dumps(entry) + "\n")

        self._attempt(str(self._file), append)
