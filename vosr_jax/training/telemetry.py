"""Logs of a run: metrics.jsonl, TensorBoard through clu, a progress line and throughput."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vosr_jax.chips import peak_flops
from vosr_jax.config import Config
from vosr_jax.console import say
from vosr_jax.files import write_text
from vosr_jax.files.attempts import Attempts
from vosr_jax.training.abstract import analytic_flops

# Share of the time spent waiting for data above which a warning is printed.
_TOO_LONG = 0.1


class RunLog:
    """Write a run's logs, on process 0 only; a failed write is reported once and is not fatal.

    Use it in a `with` block, which flushes and closes the files.

    Args:
      workdir: the run's folder.
      total_steps: for the estimate of the time left.
      config: the run's settings as plain values, for TensorBoard's hyperparameters.
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
        """Mark where this process begins; cut the rows of later steps, which a kill has undone."""
        self._first_report = None
        if self._speaks:
            self._attempt("rows of metrics.jsonl", lambda: self._open(step))

    def _open(self, step: int) -> None:
        cut_rows(self._path, step)
        self._file = self._path.open("a", buffering=1)

    def report(self, step: int, values: Mapping[str, Any]) -> None:
        """Write a step's metrics and print its progress line."""
        self.write(step, values)
        self.progress(step, values)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Write one JSON object per line, floats in full precision, and TensorBoard scalars."""
        if not self._speaks:
            return
        row = {"step": step} | {k: _number(v) for k, v in values.items()}
        if self._file is not None:
            self._attempt("rows of metrics.jsonl", lambda: self._file.write(json.dumps(row) + "\n"))
        self._tensorboard("write_scalars", step, {k: v for k, v in row.items() if k != "step"})

    def progress(self, step: int, values: Mapping[str, Any]) -> None:
        """Print a progress line; the time left ignores the first reported step.

        That step includes the compilation.
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
            # This only queues the values; failures in the writer's thread are reported there.
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
    """Keep a metrics file's rows up to a step, without half lines; the file is replaced whole.

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
    """clu's writer, which writes and flushes every row in its own thread.

    clu logs a traceback for every error that reaches its thread, so all errors are caught here.
    """
    from clu import metric_writers

    class Flushing(metric_writers.SummaryWriter):
        def write_scalars(self, step, scalars):
            trying("TensorBoard events", lambda: self._flushed("write_scalars", step, scalars))

        def write_hparams(self, hparams):
            trying("TensorBoard events", lambda: self._flushed("write_hparams", hparams))

        def _flushed(self, train_step, *arguments):
            getattr(super(), train_step)(*arguments)
            self.flush()

    return metric_writers.AsyncWriter(Flushing(str(workdir)))


def _number(value: Any) -> float | int:
    value = np.asarray(value).item()
    return value if isinstance(value, int) else float(value)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


class Rates:
    """Seconds of steps and of waiting for data, summed until they are taken.

    Args:
      config: of the run.
      mesh: of its devices.
    """

    def __init__(self, config: Config, mesh: Mesh):
        self._config, self._devices = config, mesh.devices.size
        self._peak = _peak_flops(mesh)
        self._flops = _flops_a_pair(config, mesh) if self._peak else 0.0
        self._said = False
        self._reset()

    def _reset(self) -> None:
        self._waits: list[float] = []
        self._seconds = 0.0
        self._steps = 0

    def waited(self, seconds: float) -> None:
        """Add the seconds of waiting for a batch."""
        self._waits.append(seconds)

    def stepped(self, seconds: float, steps: int = 1) -> None:
        """Add the seconds spent in steps, and how many steps that makes."""
        self._seconds += seconds
        self._steps += steps

    def take(self) -> dict[str, float]:
        """Rates since the last call; warn once if the data cannot keep up."""
        total = self._seconds + sum(self._waits)
        pairs = self._steps * self._config.train.batch_size / total
        values = {
            "pairs_per_second": pairs,
            "step_seconds": total / self._steps,
            "data_wait_seconds": sum(self._waits) / len(self._waits),
            "data_wait_seconds_max": max(self._waits),
        }
        if self._flops:
            values["mfu"] = pairs * self._flops / (self._peak * self._devices)
        share = sum(self._waits) / total
        if share > _TOO_LONG and self._steps > 1 and not self._said:
            self._said = True
            say(
                f"the data cannot keep up: {share:.0%} of the time the devices waited for them; "
                f"raise data.workers (now {self._config.data.workers}), or cut large pictures "
                "into pieces beforehand (docs/data.md)"
            )
        self._reset()
        return values


def _peak_flops(mesh: Mesh) -> float:
    """Peak of one device in bfloat16; 0 if unknown."""
    return peak_flops(mesh.devices.flat[0].device_kind)


def _flops_a_pair(config: Config, mesh: Mesh) -> float:
    """FLOPs per pair, counted in a trace that is not run; 0 with a message if that fails."""
    try:
        return analytic_flops(config, mesh.devices.flat[0])
    except Exception as error:
        # For example, the config may not determine the encoder's sizes.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        say(f"metrics have no mfu, a step's operations can't be counted: {reason}")
        return 0.0
