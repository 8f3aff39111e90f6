"""Where a run's time goes: goodput's ledger, rates between two log lines, a trace of some steps."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh
from jaxlib import xla_client

from vosr_jax.chips import peak_flops
from vosr_jax.config import Config
from vosr_jax.console import say
from vosr_jax.errors import UserError
from vosr_jax.files.atomic import Attempts, write_json
from vosr_jax.files.paths import reason_of
from vosr_jax.training.abstract import analytic_flops

KINDS = ("start", "compile", "train", "data", "save", "look", "repeat", "down")
# Share of the time spent waiting for data above which a warning is printed.
_TOO_LONG = 0.1


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


class Profile:
    """Trace from the first to the last of the given steps; do nothing if none are given.

    Args:
      folder: the workdir; the trace goes to plugins/profile in it.
      steps: (first, last), or ().

    Raises:
      UserError: steps are given, but JAX would crash while tracing them.
    """

    def __init__(self, folder: Path, steps: Sequence[int]):
        if steps:
            _check_tracer()
        self._folder = folder
        self._first, self._last = steps or (0, 0)
        self._tracing = False

    def step(self, number: int) -> jax.profiler.StepTraceAnnotation:
        """Annotation that marks a step in the trace; start the trace if due."""
        if number == self._first:
            try:
                jax.profiler.start_trace(str(self._folder))
                self._tracing = True
            except Exception as error:
                say(f"steps {self._first} to {self._last} are not traced: {error}")
        return jax.profiler.StepTraceAnnotation("train", step_num=number)

    def after(self, step: int, state: Any) -> None:
        """End the trace if due, once the devices are done."""
        if self._tracing and step >= self._last:
            jax.block_until_ready(state)
            self._stop()

    def _stop(self) -> None:
        self._tracing = False
        try:
            jax.profiler.stop_trace()
        except Exception as error:
            say(f"the trace cannot be written: {error}")
            return
        say(f"traced steps {self._first} to {self._last}: tensorboard --logdir WORKDIR")

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_) -> None:
        if self._tracing:
            self._stop()


def _check_tracer() -> None:
    """Refuse if libtpu is loaded without a TPU: its tracer then ends the process.

    JAX loads an installed libtpu unless the platform is set.
    """
    platform = jax.default_backend()
    if platform != "tpu" and _tpu_plugin_loaded():
        raise UserError(
            "train.profile_steps: libtpu is loaded and there is no TPU, so tracing would crash; "
            f"set JAX_PLATFORMS={'cuda' if platform == 'gpu' else platform}"
        )


def _tpu_plugin_loaded() -> bool:
    return xla_client.pjrt_plugin_loaded("tpu")
