"""A trace of some steps, which TensorBoard's profiler opens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jaxlib import xla_client

from vosr_jax.console import say
from vosr_jax.errors import UserError


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
    # JAX gives this no public name.

    return xla_client.pjrt_plugin_loaded("tpu")
