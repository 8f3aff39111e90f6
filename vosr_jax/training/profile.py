"""A trace of some steps, which TensorBoard's profiler opens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from vosr_jax.training.log import say


class Profile:
    """Traces from the first to the last of the given steps; nothing where none are given.

    Args:
      folder: the workdir; the trace goes to plugins/profile in it.
      steps: (first, last), or ().
    """

    def __init__(self, folder: Path, steps: Sequence[int]):
        self._folder = folder
        self._first, self._last = steps or (0, 0)
        self._tracing = False

    def before(self, step: int) -> None:
        """Begin where it is due."""
        if step == self._first:
            jax.profiler.start_trace(str(self._folder))
            self._tracing = True

    def after(self, step: int, state: Any) -> None:
        """End where it is due, once the devices are done."""
        if self._tracing and step >= self._last:
            jax.block_until_ready(state)
            self._stop()

    def _stop(self) -> None:
        jax.profiler.stop_trace()
        self._tracing = False
        say(f"traced steps {self._first} to {self._last}: tensorboard --logdir {self._folder}")

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_) -> None:
        if self._tracing:
            self._stop()
