"""What a run tells: metrics.jsonl, TensorBoard through clu, and a progress line."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vosr_jax.console import say
from vosr_jax.files import write_text
from vosr_jax.files.attempts import Attempts


class RunLog:
    """Writes on the first process only; what cannot be written is said once and ends nothing.

    Use it in a `with` block, which flushes and closes the files.

    Args:
      workdir: the run's folder.
      total_steps: for the time left.
      config: the run's settings, plain, for TensorBoard's hyperparameters.
    """

    def __init__(
        self, workdir: Path, total_steps: int, config: Mapping[str, Any] | None = None
    ) -> None:
        self._total = total_steps
        self._path = workdir / "metrics.jsonl"
        self._file: Any = None
        self._writer: Any = None
        self._attempt = Attempts(say)
        self._first_report: tuple[float, int] | None = None
        self._speaks = jax.process_index() == 0
        if not self._speaks:
            return
        try:
            self._writer = _tensorboard(workdir, self._attempt)
        except Exception as error:
            # A GPU image may lack TensorFlow; the jsonl file then has everything.
            say(f"no TensorBoard events ({error}); metrics.jsonl has everything")
        if config is not None:
            self._tensorboard("write_hparams", config)

    def start(self, step: int) -> None:
        """Mark where this process begins: rows of later steps are void, a kill has undone them."""
        self._first_report = None
        if self._speaks:
            self._attempt("rows of metrics.jsonl", lambda: self._open(step))

    def _open(self, step: int) -> None:
        cut_rows(self._path, step)
        self._file = self._path.open("a", buffering=1)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """One object a line, floats in full precision; and the same as TensorBoard scalars."""
        if not self._speaks:
            return
        row = {"step": step} | {k: _number(v) for k, v in values.items()}
        if self._file is not None:
            self._attempt("rows of metrics.jsonl", lambda: self._file.write(json.dumps(row) + "\n"))
        self._tensorboard("write_scalars", step, {k: v for k, v in row.items() if k != "step"})

    def progress(self, step: int, values: Mapping[str, Any]) -> None:
        """One line for the person who watches; the first report's step is not counted as typical.

        It has the compilation in it.
        """
        if not self._speaks:
            return
        say(
            f"step {step}/{self._total}  loss {values['loss']:.4f}  "
            f"{values['pairs_per_second']:.2f} pairs/s  "
            f"data wait {values['data_wait_seconds']:.3f} s/step  {self._left(step)}"
        )

    def _left(self, step: int) -> str:
        now = time.monotonic()
        if self._first_report is None:
            self._first_report = now, step
        since, first = self._first_report
        if step == first:
            return "first step, compilation included"
        return f"left {_duration((now - since) / (step - first) * (self._total - step))}"

    def _tensorboard(self, method: str, *arguments: Any) -> None:
        if self._writer is not None:
            # Queued is not written: what the writer's thread does with it fails apart.
            self._attempt("TensorBoard's queue", lambda: getattr(self._writer, method)(*arguments))

    def close(self) -> None:
        """Flush and close the files."""
        if self._file is not None:
            self._attempt("rows of metrics.jsonl", self._file.close)
        self._tensorboard("close")
        self._file = self._writer = None

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def cut_rows(file: Path, step: int) -> None:
    """Leave the rows up to a step in a metrics file, and no half line; the file is replaced whole.

    Args:
      file: metrics.jsonl, which need not exist.
      step: the last step that counts.
    """
    if not file.exists():
        return
    lines = file.read_text().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and _step_of(line) <= step]
    if len(kept) == len(lines):
        return
    write_text(file, "".join(kept))
    say(f"{file.name}: {len(lines) - len(kept)} rows after step {step} cut, which are done again")


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf


def _tensorboard(workdir: Path, trying: Attempts):
    """clu's writer, which works in a thread of its own and flushes there after every row.

    clu logs a traceback for every error that reaches its thread, so none does.
    """
    from clu import metric_writers

    class Flushing(metric_writers.SummaryWriter):
        def write_scalars(self, step, scalars):
            trying("TensorBoard events", lambda: self._flushed("write_scalars", step, scalars))

        def write_hparams(self, hparams):
            trying("TensorBoard events", lambda: self._flushed("write_hparams", hparams))

        def _flushed(self, method, *arguments):
            getattr(super(), method)(*arguments)
            self.flush()

    return metric_writers.AsyncWriter(Flushing(str(workdir)))


def _number(value: Any) -> float | int:
    value = np.asarray(value).item()
    return value if isinstance(value, int) else float(value)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
