"""Metrics for Prometheus."""

from collections.abc import Sequence

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from vosr_jax.serving.job_queue import Job, JobQueue

_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_PICTURES = (1, 2, 4, 8, 16)


class Metrics:
    """Metrics of one service, in their own registry."""

    def __init__(self, queue: JobQueue):
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._requests = Counter(
            "vosr_requests", "Answers to /v1/upscale", ["code"], registry=registry
        )
        self._seconds = Histogram(
            "vosr_request_seconds",
            "From a request of /v1/upscale to its answer",
            buckets=_SECONDS,
            registry=registry,
        )
        self._pictures = Counter(
            "vosr_pictures", "Pictures restored, for the page too", ["model"], registry=registry
        )
        self._megapixels = Counter(
            "vosr_result_megapixels", "Megapixels of results", ["model"], registry=registry
        )
        self._batches = Histogram(
            "vosr_batch_pictures",
            "Pictures restored together",
            buckets=_PICTURES,
            registry=registry,
        )
        self._work = Counter(
            "vosr_work_seconds", "Time that all workers together restored", registry=registry
        )
        waiting = Gauge("vosr_waiting", "Pictures that wait for a worker", registry=registry)
        waiting.set_function(lambda: queue.waiting)
        taken = Gauge("vosr_places_taken", "Requests that hold a place", registry=registry)
        taken.set_function(lambda: queue.taken)

    media_type = CONTENT_TYPE_LATEST

    def answered(self, code: int, seconds: float) -> None:
        """Count a response to /v1/upscale."""
        self._requests.labels(str(code)).inc()
        self._seconds.observe(seconds)

    def restored(self, jobs: Sequence[Job], seconds: float) -> None:
        """Count a restored batch."""
        self._batches.observe(len(jobs))
        self._work.inc(seconds)
        for job in jobs:
            self._pictures.labels(job.model).inc()
            self._megapixels.labels(job.model).inc(job.megapixels)

    def text(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self.registry)
