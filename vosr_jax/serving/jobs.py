"""Pictures that wait for the worker, and the bound on how many."""

import collections
import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np

from vosr_jax.files.photo import Photo
from vosr_jax.serving import refusals


@dataclasses.dataclass(eq=False)
class Job:
    """One picture to restore.

    Attributes:
      content: the file's bytes.
      model: its served name.
      settings: keyword arguments of the upscaler, without the seed.
      seed: of the noise.
      ending: of a file in the result's format; what the format cannot hold is refused early.
      megapixels: of the result.
      result: the restored photo, or why there is none.
      share: how much is done, 0 to 1.
      begun: whether the worker has taken it.
      watched: whether a preview is wanted while it is at work.
      preview: the newest one, uint8 [H, W, 3].
    """

    content: bytes
    model: str
    settings: dict[str, Any]
    seed: int
    ending: str
    megapixels: float
    result: Future[Photo] = dataclasses.field(default_factory=Future)
    share: float = 0.0
    begun: bool = False
    watched: bool = False
    preview: np.ndarray | None = None
    _left: threading.Event = dataclasses.field(default_factory=threading.Event)

    @property
    def left(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._left.is_set()

    @property
    def kind(self) -> tuple:
        """Equal for jobs that can be restored together."""
        # Previews cost time, which who does not look at them shall not wait for.
        return self.model, self.watched, tuple(sorted(self.settings.items()))

    def leave(self) -> None:
        """Nobody waits for the result: the queue passes over it, the worker may break it off."""
        self._left.set()
        self.result.cancel()


class JobQueue:
    """A bounded queue; every request holds one of its places until it is answered.

    Attributes:
      bound: places.
    """

    def __init__(self, bound: int):
        self.bound = bound
        self._changed = threading.Condition()
        self._waiting: collections.deque[Job] = collections.deque()
        self._taken = 0
        self._closed = False
        self._seconds = 1.0

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place while the block runs.

        Raises:
          Refusal: there is none, or the service is stopping.
        """
        with self._changed:
            if self._closed:
                raise refusals.stopping()
            if self._taken >= self.bound:
                raise refusals.busy(self._retry_after())
            self._taken += 1
        try:
            yield
        finally:
            with self._changed:
                self._taken -= 1
                self._changed.notify_all()

    @property
    def taken(self) -> int:
        """Places that are held."""
        return self._taken

    @property
    def waiting(self) -> int:
        """Jobs that the worker has not taken and that somebody waits for."""
        with self._changed:
            return sum(not job.left for job in self._waiting)

    @property
    def closed(self) -> bool:
        """Whether nothing more is taken in."""
        return self._closed

    def put(self, job: Job) -> None:
        """Line a job up.

        Raises:
          Refusal: the service is stopping.
        """
        with self._changed:
            if self._closed:
                raise refusals.stopping()
            self._waiting.append(job)
            self._changed.notify_all()

    def take(self, most: int, megapixels: float) -> list[Job]:
        """Wait for the next job, and take those that can be restored with it.

        Args:
          most: jobs to take.
          megapixels: of all their results; the first is taken whatever its size.

        Returns:
          The jobs in their order; none once the queue is closed.
        """
        with self._changed:
            while not (batch := self._next(most, megapixels)) and not self._closed:
                self._changed.wait()
            return batch

    def _next(self, most: int, megapixels: float) -> list[Job]:
        batch: list[Job] = []
        passed: collections.deque[Job] = collections.deque()
        total = 0.0
        for job in self._waiting:
            alike = not batch or (
                job.kind == batch[0].kind and total + job.megapixels <= megapixels
            )
            if len(batch) == most or not alike:
                passed.append(job)
            elif not job.left and job.result.set_running_or_notify_cancel():
                job.begun = True
                batch.append(job)
                total += job.megapixels
        self._waiting = passed
        return batch

    def measured(self, seconds: float) -> None:
        """Note how long a picture took, from which waiting clients' patience is reckoned."""
        self._seconds += 0.2 * (seconds - self._seconds)

    def close(self) -> None:
        """Take nothing more in, and refuse what waits; what is at work goes on."""
        with self._changed:
            self._closed = True
            refused, self._waiting = list(self._waiting), collections.deque()
            self._changed.notify_all()
        for job in refused:
            if job.result.set_running_or_notify_cancel():
                job.result.set_exception(refusals.stopping())

    def _retry_after(self) -> int:
        # Half of those before a client may be done when it asks again.
        return int(min(max(self._seconds * self.bound / 2, 1), 60))
