"""Batches from Grain in an order independent of hosts, workers and restarts."""

import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from absl import flags

from vosr_jax.data.bad_records import BadRecordLog, Report, notes_of
from vosr_jax.data.degradation import DegradationSettings, Settings
from vosr_jax.data.samples import Sample, SampleMaker
from vosr_jax.data.sources import Source, parse_sources
from vosr_jax.data.workers import OutOfMemory, check_shared_memory, start_worker, why_a_worker_died
from vosr_jax.errors import UserError

# Grain's endless sequences have the largest possible length; a batch of one sample overflows it.
_ENDLESS = 1 << 62
# Batches that Grain buffers per worker process.
_BUFFERS = 2


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


class _Places(Sequence):
    """(source, position) of every record of a source; Grain shuffles these instead of images."""

    def __init__(self, source: int, length: int):
        self._source, self._length = source, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, position):
        return self._source, int(position)


class RowsOfBatches(Sequence):
    """(index, place) of the samples that a process loads, in loading order.

    Args:
      places: the endless sequence of places; element k belongs to sample k.
      samples_seen: number of samples in earlier batches.
      batch_size: rows per global batch.
      rows: [R] int64, the rows of every global batch that the process loads.
    """

    def __init__(self, places: Any, samples_seen: int, batch_size: int, rows: np.ndarray):
        self._places = places
        self._seen, self._batch_size = samples_seen, batch_size
        self._rows = np.asarray(rows, np.int64)

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, position):
        batch, row = divmod(int(position), len(self._rows))
        index = self._seen + batch * self._batch_size + int(self._rows[row])
        return index, self._places[index]


def collate(samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    """Stack samples; "notes" carries the batch's report to the parent process."""
    return {
        "hr": np.stack([sample.hr for sample in samples]),
        "lq": np.stack([sample.lq for sample in samples]),
        "index": np.array([sample.index for sample in samples], np.int64),
        "replaced": np.array([bool(sample.bad) for sample in samples]),
        "notes": notes_of(samples),
    }


def places(settings: PipelineSettings, sources: tuple[Source, ...]):
    """Make the endless sequence of (source, position), as a Grain MapDataset."""
    import grain  # takes a second, and planning a run needs no batches

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
    import grain  # as in `places`

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


def checked_rows(rows: Sequence[int] | np.ndarray | None, batch_size: int) -> np.ndarray:
    """Check the rows and return them as int64; None means all rows of the batch.

    Raises:
      UserError: the batch has no rows.
      ValueError: there are no rows, one is outside the batch, or one is repeated.
    """
    if batch_size < 1:
        raise UserError(f"train.batch_size is {batch_size}; it must be at least 1")
    if rows is None:
        return np.arange(batch_size, dtype=np.int64)
    rows = np.asarray(rows, np.int64)
    distinct = len(np.unique(rows)) == len(rows) > 0
    if rows.ndim != 1 or not distinct or rows.min() < 0 or rows.max() >= batch_size:
        raise ValueError(f"rows {rows} are no rows of a batch of {batch_size}")
    return rows


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
        return batch, Report.from_notes(len(batch["index"]), batch.pop("notes"))

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
