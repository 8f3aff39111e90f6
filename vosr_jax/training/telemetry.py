"""What a run says: its start report, metrics.jsonl, TensorBoard through clu, progress lines."""

import json
import math
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding

from vosr_jax.console import say
from vosr_jax.data.sources.source import Source, megapixels
from vosr_jax.errors import UserError
from vosr_jax.files import write_text
from vosr_jax.files.atomic import Attempts
from vosr_jax.models.lora import share_of, trained_of
from vosr_jax.training.setup import Run
from vosr_jax.training.sharding import parameter_spec
from vosr_jax.training.step import TIME_BINS

PARAMETERS = "parameters.txt"
# Steps whose values may still be in flight; the loop itself is never further ahead.
_AT_ONCE = 2


def report_start(run: Run, folder: Path, sources: Iterable[Source]) -> None:
    """Print what this run works with, on process 0; list every parameter in a file.

    Args:
      run: begun or resumed.
      folder: of the run; gets parameters.txt.
      sources: opened.
    """
    if jax.process_index():
        return
    say(about_devices(run.mesh))
    shapes = run.train_step.network.shapes
    table, last = parameter_table(trained_of(shapes), run.mesh).rsplit("\n", 1)
    if run.base is not None:
        last += f", of adapters: {share_of(shapes):.2%} of the network"
    where = ""
    try:
        write_text(folder / PARAMETERS, f"{table}\n{last}\n")
        where = f"; each in {PARAMETERS}"
    except UserError as error:
        where = f"; {error}"
    say(f"{last}{where}")
    for source in sources:
        say(about_source(source))


def about_devices(mesh: Mesh) -> str:
    """Describe the devices by number and kind, their processes and their mesh."""
    devices = list(mesh.devices.flat)
    kinds = Counter(device.device_kind for device in devices)
    named = " and ".join(f"{count} x {kind}" for kind, count in kinds.items())
    processes = len({device.process_index for device in devices})
    axes = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    of = f" of {processes} processes" if processes > 1 else ""
    return f"devices: {named}{of}; mesh {axes}"


def about_source(source: Source) -> str:
    """Describe a source and the size of its images."""
    size = megapixels(source)
    told = "none that were looked at can be read"
    if size is not None:
        told = f"about {size[0]:.2g} megapixels each ({size[1]} looked at)"
    return f"source {source.about()}, {told}"


def parameter_table(parameters: Mapping[str, jax.ShapeDtypeStruct], mesh: Mesh) -> str:
    """A table of every parameter: name, shape, sharding and bytes on one device."""
    lines, total = [], 0
    width = max(map(len, parameters))
    for name, value in parameters.items():
        spec = parameter_spec(name, value.shape, mesh)
        shape = NamedSharding(mesh, spec).shard_shape(value.shape)
        size = int(np.prod(shape)) * value.dtype.itemsize
        total += size
        lines.append(f"{name:{width}} {str(value.shape):24} {str(spec):48} {size:>12,}")
    count = sum(value.size for value in parameters.values())
    lines.append(f"{count:,} parameters, {total:,} bytes on a device")
    return "\n".join(lines)


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
    from clu import metric_writers  # optional, and TensorFlow comes with it

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


class LossByTime:
    """Sum the steps' losses until they are taken; `see` does not wait for steps in flight."""

    def __init__(self):
        self._under_way: deque[Array] = deque()
        self._total = np.zeros((2, TIME_BINS))

    def see(self, metrics: dict[str, Array]) -> None:
        """Add a started step."""
        found = metrics["loss_by_t"]
        found.copy_to_host_async()
        self._under_way.append(found)
        if len(self._under_way) > _AT_ONCE:
            self._total += np.asarray(self._under_way.popleft())

    def take(self) -> dict[str, float]:
        """Means loss_t0 to loss_t9 of all rows since the last call, without empty tenths."""
        sums, counts = self._total + sum(map(np.asarray, self._under_way))
        self._under_way.clear()
        self._total = np.zeros((2, TIME_BINS))
        means = enumerate(zip(sums, counts, strict=True))
        return {f"loss_t{i}": float(total / count) for i, (total, count) in means if count}
