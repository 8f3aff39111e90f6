"""Batches from Grain in an order independent of hosts, workers and restarts."""

import functools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from vosr_jax.data.bad_records import BadRecordLog, Report
from vosr_jax.data.degradation import DegradationSettings, Settings
from vosr_jax.data.row_order import RowsOfBatches, checked_rows
from vosr_jax.data.samples import BadRecord, Sample, SampleMaker
from vosr_jax.data.shared_memory import check_shared_memory
from vosr_jax.data.sources import Source, parse_sources
from vosr_jax.data.workers import OutOfMemory, start_worker, why_a_worker_died
from vosr_jax.errors import UserError


@dataclass(frozen=True)
class PipelineSettings:
    """Settings of the data pipeline.

    Attributes:
      sources: `path[:weight],...`, or None for scikit-image's photos.
      seed: seed of the order, the crops and the degradation.
      batch_size: pairs per global batch, over all hosts.
      crop_size: side of hr and lq in pixels.
      scale: factor between HR and LR size.
      flip: mirror half of the crops (the official code does not).
      workers: processes that make batches; 0: threads of this process.
      degradation: settings of the random degradation.
      max_bad_fraction: share of unreadable records above which the run stops.
      cache_bytes: bytes of decoded images that each process keeps.
    """

    sources: str | None = None
    seed: int = 0
    batch_size: int = 16
    crop_size: int = 512
    scale: int = 4
    flip: bool = True
    workers: int = 0
    degradation: Settings = DegradationSettings()
    max_bad_fraction: float = 0.05
    cache_bytes: int = 1 << 30


# Batches that Grain buffers per worker process.
_BUFFERS = 2


class _Places(Sequence):
    """(source, position) of every record of a source; Grain shuffles these instead of images."""

    def __init__(self, source: int, length: int):
        self._source, self._length = source, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, position):
        return self._source, int(position)


def collate(samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    """Stack samples; "notes" carries the batch's report to the parent process, as JSON bytes."""
    notes = {
        "enlarged": sum(sample.enlarged for sample in samples),
        "bad": [[asdict(bad) for bad in sample.bad] for sample in samples if sample.bad],
        "lost": [sample.bad[0].source for sample in samples if sample.lost],
    }
    return {
        "hr": np.stack([sample.hr for sample in samples]),
        "lq": np.stack([sample.lq for sample in samples]),
        "index": np.array([sample.index for sample in samples], np.int64),
        "replaced": np.array([bool(sample.bad) for sample in samples]),
        "notes": np.frombuffer(json.dumps(notes).encode(), np.uint8),
    }


def places(settings: PipelineSettings, sources: tuple[Source, ...]):
    """Make the endless sequence of (source, position), as a Grain MapDataset."""
    import grain

    endless = [
        grain.MapDataset.source(_Places(number, len(source)))
        .seed(settings.seed + number)
        .shuffle()
        .repeat()
        for number, source in enumerate(sources)
    ]
    if len(endless) == 1:
        return endless[0]
    return grain.MapDataset.mix(endless, weights=[source.weight for source in sources])


def sample_maker(
    settings: PipelineSettings, sources: tuple[Source, ...], keep_plans: bool = False
) -> SampleMaker:
    """Make the function that turns a place into a sample."""
    return SampleMaker(
        sources,
        seed=settings.seed,
        crop_size=settings.crop_size,
        scale=settings.scale,
        flip=settings.flip,
        degradation=settings.degradation,
        cache_bytes=settings.cache_bytes,
        keep_plans=keep_plans,
    )


def _dataset(settings: PipelineSettings, sources, samples_seen: int, rows: np.ndarray):
    """Make the endless dataset of these rows of every batch, as a Grain IterDataset."""
    import grain

    maker = sample_maker(settings, sources)
    # Batch before the worker processes, or their number would change the rows.
    order = RowsOfBatches(places(settings, sources), samples_seen, settings.batch_size, rows)
    samples = grain.MapDataset.source(order).map(lambda indexed: maker(*indexed))
    own = samples.batch(len(rows), batch_fn=collate)
    # An element is a whole batch: Grain's default buffer of 500 would fill the memory.
    threads = 1 if settings.workers else 2
    read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2)
    dataset = own.to_iter_dataset(read)
    if settings.workers:
        options = grain.MultiprocessingOptions(
            num_workers=settings.workers, per_worker_buffer_size=_BUFFERS
        )
        start = functools.partial(start_worker, os.getpid())
        dataset = dataset.mp_prefetch(options, worker_init_fn=start)
    return dataset


def _check(settings: PipelineSettings, samples_seen: int) -> None:
    if samples_seen < 0:
        raise ValueError(f"samples_seen is {samples_seen}")
    if settings.crop_size % settings.scale:
        raise UserError(
            f"data.crop_size is {settings.crop_size}; it must be a multiple of the scale "
            f"{settings.scale}"
        )
    if settings.seed < 0:
        raise UserError(f"seed is {settings.seed}; it must not be negative")
    if settings.workers < 0 or settings.cache_bytes < 0 or not 0 <= settings.max_bad_fraction <= 1:
        raise UserError(
            "data.workers and data.cache_bytes must not be negative, and data.max_bad_fraction "
            "must lie between 0 and 1"
        )


class Batches:
    """An endless iterator of batches; close it, or use it in a `with` block.

    Attributes:
      sources: sources of the images.
      log: counts of replaced and enlarged samples; `take` leaves updating it to its caller.
    """

    def __init__(self, dataset, sources: tuple[Source, ...], log: BadRecordLog):
        from absl import flags

        # Grain's workers read flags, which are unparsed in a program not started by absl.app.run.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        self.sources = sources
        self.log = log
        self._memory = OutOfMemory()
        self._iterator = iter(dataset)
        self._iterator.start_prefetch()

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        """Return the next batch.

        Returns:
          {"hr", "lq": [R, side, side, 3] uint8, "index": [R] int64, "replaced": [R] bool}.

        Raises:
          UserError: too many records are bad, a source is gone, or a worker has died.
        """
        batch, report = self.take()
        self.log.add(report)
        if report.lost is not None:
            raise self.log.lost(report.lost)
        self.log.check()
        return batch

    def take(self) -> tuple[dict[str, np.ndarray], Report]:
        """Return the next batch as `__next__` does, and its report, without checking the report.

        Raises:
          UserError: a worker has died.
        """
        if self._iterator is None:
            raise ValueError("the batches were closed")
        try:
            found = next(self._iterator)
        except RuntimeError as error:
            reason = why_a_worker_died(error, self._memory)
            if reason is None:
                raise
            raise UserError(reason) from error
        # Copy: arrays in the workers' shared memory must not outlive the workers.
        batch = {key: np.array(value) for key, value in found.items()}
        notes = json.loads(batch.pop("notes").tobytes())
        rows = [[BadRecord(**bad) for bad in row] for row in notes["bad"]]
        lost = notes["lost"][0] if notes["lost"] else None
        return batch, Report(len(batch["index"]), notes["enlarged"], rows, lost)

    def close(self) -> None:
        """Stop the workers; closing twice is allowed."""
        if self._iterator is not None:
            self._iterator.close()
            # Free it now: Grain's finalizers fail while the interpreter shuts down.
            self._iterator = None

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def batches(
    settings: PipelineSettings,
    *,
    samples_seen: int = 0,
    rows: Sequence[int] | np.ndarray | None = None,
    bad_records_path: str | os.PathLike | None = None,
) -> Batches:
    """Open the data pipeline.

    Row r of the k-th batch is sample samples_seen + k * batch_size + r, for any division of the
    rows among processes, any number of workers and any restart. Sample i depends on the sources,
    the seed and i alone.

    Args:
      settings: settings of the pipeline.
      samples_seen: global number of samples in earlier batches.
      rows: the rows [R] of every global batch that this process loads, in this order; all if not
        given.
      bad_records_path: file that lists unreadable records.

    Returns:
      A context manager that is also the iterator.

    Raises:
      UserError: a source or setting is wrong.
    """
    own = checked_rows(rows, settings.batch_size)
    _check(settings, samples_seen)
    check_shared_memory(settings.workers, _BUFFERS, len(own), settings.crop_size)
    sources = parse_sources(settings.sources)
    dataset = _dataset(settings, sources, samples_seen, own)
    return Batches(dataset, sources, BadRecordLog(bad_records_path, settings.max_bad_fraction))
