"""The service that the HTTP interface and the page share."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from vosr_jax.errors import UserError
from vosr_jax.files.photo_reading import photo_size
from vosr_jax.restoration.inputs import enlarged_size
from vosr_jax.restoration.presets import PRESETS
from vosr_jax.restoration.upscaler import Upscaler
from vosr_jax.serving import refusals
from vosr_jax.serving.fields import Fields, hint
from vosr_jax.serving.job_queue import Job, JobQueue
from vosr_jax.serving.metrics import Metrics
from vosr_jax.serving.settings import ServiceSettings
from vosr_jax.serving.worker import Workers, load_models


class Service:
    """A queue, its workers and their metrics.

    Attributes:
      settings: limits of the service.
      names: names of the served models; the first is the default.
      metrics: metrics of the service.
    """

    def __init__(
        self,
        names: list[str],
        load: Callable[[], Sequence[Mapping[str, Upscaler]]],
        settings: ServiceSettings | None = None,
    ):
        self.settings = settings or ServiceSettings()
        self.names = names
        self._queue = JobQueue(self.settings.queue)
        self.metrics = Metrics(self._queue)
        self._workers = Workers(load, self._queue, self.settings, self.metrics)

    def start(self) -> None:
        """Start loading the models."""
        self._workers.start()

    def stop(self) -> None:
        """Accept no more jobs and refuse waiting ones; running jobs continue."""
        self._queue.close()

    def join(self, seconds: float) -> None:
        """Wait for the workers to end after `stop`."""
        self._workers.join(seconds)

    @property
    def idle(self) -> bool:
        """Whether no request holds a place."""
        return not self._queue.taken

    @property
    def stopping(self) -> bool:
        """Whether the service accepts no more jobs."""
        return self._queue.closed

    @property
    def trouble(self) -> Exception | None:
        """Why the models could not be loaded, or None."""
        return self._workers.trouble

    def require_ready(self) -> None:
        """Raise a Refusal unless the models are loaded and requests are accepted."""
        if self._queue.closed:
            raise refusals.stopping()
        if not self._workers.models:
            raise refusals.loading()

    def place(self) -> AbstractContextManager[None]:
        """Reserve a place in the queue while a request is read, processed and answered.

        Raises:
          Refusal: no place is free, the models are not loaded, or the service is stopping.
        """
        self.require_ready()
        return self._queue.place()

    def submit(self, content: bytes, fields: Fields, watched: bool = False) -> Job:
        """Queue a photo; the caller holds a place.

        Args:
          content: bytes of its file. Only its size is decoded here.
          fields: the requested settings.
          watched: whether the job's `preview` is used.

        Raises:
          Refusal: not a photo, one that is too large, or fields that the model refuses.
        """
        name, upscaler = self.model(fields.model)
        try:
            settings = fields.settings(upscaler)
            size = photo_size(content, float("inf"))
        except UserError as error:
            raise refusals.Refusal(422, str(error)) from error
        size = enlarged_size(size, fields.scale)
        megapixels = size[0] * size[1] / 1e6
        if megapixels > self.settings.max_megapixels:
            raise refusals.result_too_large(size, self.settings.max_megapixels)
        job = Job(content, name, settings, fields.seed, fields.ending, megapixels, watched=watched)
        self._queue.put(job)
        return job

    def model(self, name: str | None) -> tuple[str, Upscaler]:
        """Return a model's served name and its upscaler; the first if no name is given.

        Raises:
          Refusal: the model is not served, or not loaded yet.
        """
        self.require_ready()
        name = self.names[0] if name is None else name
        if name not in self._workers.models:
            shown = name if len(name) <= 60 else f"{name[:60]}…"
            raise refusals.Refusal(
                404, f"model {shown!r} is not served here{hint(name, self.names)}"
            )
        return name, self._workers.models[name]

    def describe(self, name: str) -> dict[str, Any]:
        """Describe a model for clients."""
        _, upscaler = self.model(name)
        model = upscaler.model
        return {
            "name": name,
            "default": name == self.names[0],
            "steps": model.sampler.steps,
            "one_step": model.one_step,
            "guided": model.guided,
            "guidance_scale": model.sampler.guidance_scale if model.guided else None,
            "colour_fix": model.colour_fix,
            "presets": {preset: upscaler.preset(preset) for preset in PRESETS},
            "notes": list(model.notes),
        }


def open_service(
    settings: ServiceSettings, models: Mapping[str, str], precisions: tuple[str, str]
) -> Service:
    """Find the models and make their service, which loads them when it starts.

    Args:
      settings: limits of the service.
      models: {served name: name or path}.
      precisions: of the denoisers and the autoencoders.

    Raises:
      UserError: there is no such model.
    """
    # Loads JAX, which a service of other upscalers does not need.
    from vosr_jax.weights.resolve import resolve

    found = {name: resolve(model) for name, model in models.items()}
    return Service(list(models), partial(load_models, found, precisions), settings)
