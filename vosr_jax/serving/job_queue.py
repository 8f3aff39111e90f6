"""Jobs of the workers, in a bounded queue."""

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
    """One photo to restore.

    Attributes:
      content: the file's bytes.
      model: the model's served name.
      settings: keyword arguments of the upscaler, without the seed.
      seed: seed of the noise.
      ending: file ending of the result's format; a photo that it cannot hold is refused early.
      megapixels: size of the result.
      result: the restored photo, or an error.
      share: finished share, 0 to 1.
      begun: whether the worker has taken it.
      watched: whether previews are wanted during the work.
      preview: the newest preview, uint8 [H, W, 3].
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
        """Whether the job was abandoned."""
        return self._left.is_set()

    @property
    def kind(self) -> tuple:
        """Key that is equal for jobs that can be restored in one batch."""
        # Previews cost time, so a job without them must not share a batch with one that has them.
        return self.model, self.watched, tuple(sorted(self.settings.items()))

    def leave(self) -> None:
        """Abandon the job: the queue skips it, and the worker may stop it."""
        self._left.set()
        self.result.cancel()


class JobQueue:
    """A bounded queue; every request holds one of its places until it is answered.

    Attributes:
      bound: number of places.
    """

    def __init__(self, bound: int):
        self.bound = bound
        self._changed = threading.Condition()
        self._waiting: collections.deque[Job] = collections.deque()
        self._taken = self._idle = 0
        self._closed = False
        self._seconds = 1.0

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place while the block runs.

        Raises:
          Refusal: no place is free, or the service is stopping.
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
        """Number of places that are held."""
        return self._taken

    @property
    def waiting(self) -> int:
        """Number of jobs that no worker has taken and that were not abandoned."""
        with self._changed:
            return sum(not job.left for job in self._waiting)

    @property
    def closed(self) -> bool:
        """Whether the queue accepts no more jobs."""
        return self._closed

    def put(self, job: Job) -> None:
        """Append a job to the queue.

        Raises:
          Refusal: the service is stopping.
        """
        with self._changed:
            if self._closed:
                raise refusals.stopping()
            self._waiting.append(job)
            self._changed.notify_all()

    def take(self, most: int, megapixels: float) -> list[Job]:
        """Wait for the next job and take it with others of its kind.

        Args:
          most: most jobs to take.
          megapixels: most megapixels of all their results; the first job may exceed it.

        Returns:
          The jobs in queue order; none once the queue is closed.
        """
        with self._changed:
            self._idle += 1
            try:
                while not (batch := self._next(most, megapixels)) and not self._closed:
                    self._changed.wait()
                return batch
            finally:
                self._idle -= 1

    def _next(self, most: int, megapixels: float) -> list[Job]:
        # Every worker that waits gets its part of the jobs.
        most = min(most, -(-len(self._waiting) // max(self._idle, 1)))
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
        """Record the time per photo, from which Retry-After is computed."""
        self._seconds += 0.2 * (seconds - self._seconds)

    def close(self) -> None:
        """Accept no more jobs and refuse waiting ones; running jobs continue."""
        with self._changed:
            self._closed = True
            refused, self._waiting = list(self._waiting), collections.deque()
            self._changed.notify_all()
        for job in refused:
            if job.result.set_running_or_notify_cancel():
                job.result.set_exception(refusals.stopping())

    def _retry_after(self) -> int:
        # By then about half of the jobs in a full queue are done.
        return int(min(max(self._seconds * self.bound / 2, 1), 60))
