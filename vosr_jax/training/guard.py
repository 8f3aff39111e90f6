"""Watch a run and end it: too many skipped updates in a row, or a step that hangs."""

import contextlib
import faulthandler
import json
import math
import os
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from vosr_jax.console import say
from vosr_jax.diffusion.noise import columns_index
from vosr_jax.files.atomic import Attempts
from vosr_jax.files.mirror import upload_before_leaving
from vosr_jax.training.processes import SharedError, store

# A spike is _DEVIATIONS typical deviations above the median of the latest losses, _WINDOW of them
# or at least _ENOUGH.
_DEVIATIONS, _WINDOW, _ENOUGH = 8.0, 100, 20
# Metrics read at every step; the rows are read only if something is wrong.
_READ = ("loss", "skipped", "notes")
# Limit for compiling, previews and saving; their duration does not follow from a step's.
PHASE_SECONDS = 3600.0


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


class Watchdog:
    """End the process if nothing finishes in time; first print every thread's stack.

    A step must finish within `seconds`. Other work, marked with `phase`, may take longer. So may
    a step that compiles first (`begin`).

    In a job of several processes each publishes its step, and the message names those that lag
    behind. A dead process is noticed sooner (training/distributed.py).

    Args:
      seconds: limit without a finished step; 0 disables the watchdog.
      phase_seconds: limit for a phase, if that is longer.
    """

    def __init__(self, seconds: float, phase_seconds: float = PHASE_SECONDS):
        self._seconds = seconds
        self._longest = max(seconds, phase_seconds)
        # (start time, phase or None), replaced as one because the other thread reads it.
        self._state: tuple[float, str | None] = time.monotonic(), None
        self._step = 0
        self._closed = threading.Event()
        if seconds:
            # Two threads: a coordinator that does not answer must not keep the first from watching.
            for work in (self._watch, self._tell):
                threading.Thread(target=work, daemon=True).start()

    def see(self, step: int) -> None:
        """Record a finished step."""
        self._state, self._step = (time.monotonic(), None), step

    def begin(self, phase: str) -> None:
        """Start a phase that may take longer than a step; it lasts until a step is seen."""
        self._state = time.monotonic(), phase

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Mark work other than a step; the message names it."""
        self.begin(name)
        try:
            yield
        finally:
            self._state = time.monotonic(), None

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(self, *_) -> None:
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(min(self._seconds / 4, 5.0)):
            since, phase = self._state
            limit = self._seconds if phase is None else self._longest
            if time.monotonic() - since > limit:
                _end(limit, phase)

    def _tell(self) -> None:
        """Keep telling the other processes this one's newest step; no step waits for it."""
        told = 0
        while not self._closed.wait(min(self._seconds / 4, 5.0)):
            client, step = store(), self._step
            if client is None or step == told:
                continue
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                client.key_value_set(f"vosr/step/{jax.process_index()}", str(step), True)
                told = step


def _end(seconds: float, phase: str | None) -> None:
    text = f"no step finished for {seconds:.0f} s (train.hang_seconds)"
    if phase is not None:
        text = f"{phase} did not end for {seconds:.0f} s (train.hang_seconds, but an hour at least)"
    behind = _behind()
    if behind:
        text += f"; behind the others: {behind}"
    print(f"{text}; every thread's stack follows, then this process ends", file=sys.stderr)
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
    sys.stderr.flush()
    upload_before_leaving()
    os._exit(1)


def _behind() -> str:
    """The processes that lag behind the newest step, as text."""
    client = store()
    if client is None:
        return ""
    steps = {key.rpartition("/")[2]: int(v) for key, v in client.key_value_dir_get("vosr/step/")}
    for number in range(jax.process_count()):
        steps.setdefault(str(number), 0)
    return ", ".join(
        f"process {number} at step {step}"
        for number, step in sorted(steps.items())
        if step < max(steps.values())
    )
