"""Worker threads, one per device, that load models and restore queued photos in batches."""

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vosr_jax.errors import UserError
from vosr_jax.files.photo import Photo
from vosr_jax.files.photo_reading import read_photo
from vosr_jax.files.photo_writing import check_target
from vosr_jax.quiet import open_devices
from vosr_jax.restoration.inputs import enlarged_size
from vosr_jax.restoration.upscaler import Upscaler
from vosr_jax.serving import refusals
from vosr_jax.serving.job_queue import Job, JobQueue
from vosr_jax.serving.metrics import Metrics
from vosr_jax.serving.settings import ServiceSettings

_log = logging.getLogger(__name__)


def load_models(
    models: Mapping[str, Any], precisions: tuple[str, str]
) -> list[dict[str, Upscaler]]:
    """Load models on every device of this process.

    Args:
      models: {served name: the model}, as `Upscaler.from_pretrained` takes it.
      precisions: of the denoisers and the autoencoders.

    Returns:
      {served name: upscaler} for each device.
    """
    devices = open_devices()
    loaded = {}
    for name, model in models.items():
        upscaler = Upscaler.from_pretrained(model, *precisions)
        # Use the served name, or errors for clients would show a path of this machine.
        loaded[name] = Upscaler(dataclasses.replace(upscaler.model, name=name))
    return [{name: upscaler.on(device) for name, upscaler in loaded.items()} for device in devices]


class _NobodyWaits(Exception):
    """Raised inside a call of the upscaler to stop it."""


class Workers:
    """Threads that restore a queue's jobs until it is closed, each on its own device.

    Attributes:
      models: {served name: upscaler} on the first device; empty until all are loaded.
      trouble: why the models could not be loaded, or None.
    """

    def __init__(
        self,
        load: Callable[[], Sequence[Mapping[str, Upscaler]]],
        queue: JobQueue,
        settings: ServiceSettings,
        metrics: Metrics,
    ):
        self.models: Mapping[str, Upscaler] = {}
        self.trouble: Exception | None = None
        self._load, self._queue = load, queue
        self._settings, self._metrics = settings, metrics
        self._threads = [self._thread(self._begin)]

    def start(self) -> None:
        """Start loading the models, then work."""
        self._threads[0].start()

    def join(self, seconds: float) -> None:
        """Wait for the threads, which end once the queue is closed."""
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0.0))

    def _thread(self, target: Callable[..., None], *arguments: object) -> threading.Thread:
        # A daemon thread: a second Ctrl-C must end the process in the middle of a photo.
        return threading.Thread(target=target, args=arguments, name="worker", daemon=True)

    def _begin(self) -> None:
        try:
            on_devices = self._load()
        except Exception as error:
            self.trouble = error
            self._queue.close()
            return
        others = [self._thread(self._work, models) for models in on_devices[1:]]
        self._threads += others
        self.models = on_devices[0]
        for thread in others:
            thread.start()
        self._work(on_devices[0])

    def _work(self, models: Mapping[str, Upscaler]) -> None:
        while batch := self._queue.take(self._settings.batch, self._settings.max_megapixels):
            self._finish(models, batch)

    def _finish(self, models: Mapping[str, Upscaler], batch: list[Job]) -> None:
        jobs: list[Job] = []
        photos: list[Photo] = []
        for job in batch:
            try:
                photos.append(self._decoded(job))
                jobs.append(job)
            except Exception as error:
                _fail(job, error)
        if jobs:
            self._restore(models, jobs, photos)

    def _decoded(self, job: Job) -> Photo:
        photo = read_photo(job.content, self._settings.max_megapixels)
        size = enlarged_size(photo.size, job.settings["scale"])
        target = Path(f"result.{job.ending}")
        check_target(target, photo.alpha is not None, size, photo.bits)
        return photo

    def _restore(
        self, models: Mapping[str, Upscaler], jobs: list[Job], photos: list[Photo]
    ) -> None:
        def progress(share: float) -> None:
            for job in jobs:
                job.share = share
            if all(job.left for job in jobs):
                raise _NobodyWaits

        def preview(index: int, picture: np.ndarray) -> None:
            jobs[index].preview = picture

        began = time.monotonic()
        try:
            results = models[jobs[0].model].restore_batch(
                photos,
                seeds=[job.seed for job in jobs],
                progress=progress,
                preview=preview if jobs[0].watched else None,
                output="photo",
                **jobs[0].settings,
            )
        except _NobodyWaits:
            return
        except Exception as error:
            if len(jobs) == 1:
                _fail(jobs[0], error)
                return
            # Retry one by one: a bad photo must not fail its whole batch.
            for job, photo in zip(jobs, photos, strict=True):
                self._restore(models, [job], [photo])
            return
        seconds = time.monotonic() - began
        self._queue.measured(seconds / len(jobs) / len(self._threads))
        self._metrics.restored(jobs, seconds)
        for job, result in zip(jobs, results, strict=True):
            job.share = 1.0
            job.result.set_result(result)


def _fail(job: Job, error: Exception) -> None:
    if isinstance(error, UserError):
        job.result.set_exception(refusals.Refusal(422, str(error)))
        return
    _log.error("a picture failed", exc_info=error)
    job.result.set_exception(refusals.failed())
