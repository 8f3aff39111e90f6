"""Progress reports and time limit of a fine-tuning run."""

import time
from collections.abc import Callable
from typing import Any

from vosr_jax.training.setup import Run

_EVERY_SECONDS = 10.0


class Watch:
    """Called by the train loop after every step.

    Args:
      steps: number of steps at which training ends; 0: only the clock ends it.
      until: `time.monotonic()` at which training ends; None: only the steps end it.
      shows: shares of the training at which `show` is called.
      show: evaluates and draws the run.
      tell: prints a line.

    Attributes:
      finished: whether steps or time are up.
    """

    def __init__(
        self,
        steps: int,
        until: float | None,
        shows: tuple[float, ...],
        show: Callable[[Run], None],
        tell: Callable[[str], None],
    ):
        self._steps, self._until = steps, until
        self._shows, self._show, self._tell = list(shows), show, tell
        self._began = self._told = time.monotonic()
        self.finished = False

    def __call__(self, run: Run, step: int, metrics: dict[str, Any]) -> bool:
        """Report progress and show samples if due; return whether to stop after this step."""
        way = self._way(step)
        now = time.monotonic()
        if now - self._told > _EVERY_SECONDS or way >= 1 or step == run.first[0] + 1:
            # Reading the loss waits for the step and idles the device, so do it rarely.
            self._tell(f"step {step}: loss {float(metrics['loss']):.4f}, {self._left(way)}")
            self._told = now
        if self._shows and way >= self._shows[0]:
            while self._shows and way >= self._shows[0]:
                self._shows.pop(0)
            self._show(run)
        self.finished = way >= 1
        return self.finished

    def _way(self, step: int) -> float:
        """The share of the training that is done."""
        if self._steps:
            return step / self._steps
        assert self._until is not None
        return (time.monotonic() - self._began) / max(self._until - self._began, 1e-3)

    def _left(self, way: float) -> str:
        if self._steps:
            return f"{min(way, 1):.0%} of {self._steps} steps"
        left = max((self._until or 0.0) - time.monotonic(), 0.0)
        return f"{int(left // 60)}:{int(left % 60):02} left"
