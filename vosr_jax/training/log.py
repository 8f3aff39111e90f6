"""What a run tells: metrics.jsonl, TensorBoard through clu, and a progress line."""

import json
import sys
import time
from pathlib import Path

import jax
import numpy as np


def say(text: str) -> None:
    """A line for the person who watches, from the first process alone."""
    if jax.process_index() == 0:
        print(text, file=sys.stderr, flush=True)


class RunLog:
    """Writes on the first process only.

    Args:
      workdir: the run's folder.
      total_steps: for the time left.
    """

    def __init__(self, workdir: Path, total_steps: int):
        self._total = total_steps
        self._file = None
        self._writer = None
        self._started, self._first_step = time.monotonic(), 0
        if jax.process_index():
            return
        self._file = (workdir / "metrics.jsonl").open("a", buffering=1)
        try:
            from clu import metric_writers

            self._writer = metric_writers.SummaryWriter(str(workdir))
        except ImportError as error:
            # A GPU image may lack TensorFlow; the jsonl file then has everything.
            say(f"no TensorBoard events ({error}); metrics.jsonl has everything")

    def start(self, step: int) -> None:
        """Mark where this process began, for the time left."""
        self._started, self._first_step = time.monotonic(), step

    def write(self, step: int, values: dict[str, float]) -> None:
        """One object a line, floats in full precision; and the same as TensorBoard scalars."""
        if self._file is None:
            return
        row = {"step": step} | {k: _number(v) for k, v in values.items()}
        self._file.write(json.dumps(row) + "\n")
        if self._writer is not None:
            self._writer.write_scalars(step, {k: v for k, v in row.items() if k != "step"})
            self._writer.flush()

    def progress(self, step: int, values: dict[str, float]) -> None:
        """One line for the person who watches."""
        if self._file is None:
            return
        done = max(step - self._first_step, 1)
        left = (time.monotonic() - self._started) / done * (self._total - step)
        say(
            f"step {step}/{self._total}  loss {values['loss']:.4f}  "
            f"{values['pairs_per_second']:.2f} pairs/s  "
            f"data wait {values['data_wait_seconds']:.3f} s/step  left {_duration(left)}"
        )

    def close(self) -> None:
        """Flush and close the files."""
        if self._file is not None:
            self._file.close()
        if self._writer is not None:
            self._writer.close()


def _number(value) -> float | int:
    value = np.asarray(value).item()
    return value if isinstance(value, int) else float(value)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
