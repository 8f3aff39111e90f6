"""Batches in an order that neither hosts, workers nor restarts can disturb (Grain)."""

import functools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from vosr_jax.data.bad_records import BadRecordLog
from vosr_jax.data.degradation import RealESRGANSettings
from vosr_jax.data.samples import BadRecord, Sample, SampleMaker
from vosr_jax.data.sources import Source, parse_sources
from vosr_jax.data.workers import start_worker
from vosr_jax.errors import UserError


@dataclass(frozen=True)
class PipelineSettings:
    """What batches are made of.

    Attributes:
      sources: `path[:weight],...`, or None for scikit-image's photographs.
      seed: of the order, the crops and the degradation.
      batch_size: pairs of a global batch, over all hosts.
      crop_size: side of hr and lq in pixels.
      scale: LR pixels are this much larger.
      flip: mirror half of the crops (the official code does not).
      workers: processes that make batches; 0: threads of this process.
      degradation: what may happen to a crop.
      max_bad_fraction: share of unreadable records above which the run stops.
      cache_bytes: decoded pictures that each process keeps.
    """

    sources: str | None = None
    seed: int = 0
    batch_size: int = 16
    crop_size: int = 512
    scale: int = 4
    flip: bool = True
    workers: int = 0
    degradation: RealESRGANSettings = RealESRGANSettings()
    max_bad_fraction: float = 0.05
    cache_bytes: int = 1 << 30


# Grain's endless sequences are as long as a length can be, and a batch of one sample overflows it.
_ENDLESS = 1 << 62


class _Places(Sequence):
    """(source, position) of every record of a source: what Grain shuffles instead of pictures."""

    def __init__(self, source: int, length: int):
        self._source, self._length = source, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, position):
        return self._source, int(position)


def collate(samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    """Stack samples; "notes" carries what happened to the parent process, as JSON in bytes."""
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
    """(source, position) of every sample of the endless sequence, as a Grain MapDataset."""
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
    """What turns a place into a sample."""
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


def _dataset(settings: PipelineSettings, sources, samples_seen: int, shard: int, shards: int):
    """The endless dataset of this shard's batches, as a Grain IterDataset."""
    import grain

    maker = sample_maker(settings, sources)
    # Made before the slices, index is the position in the endless sequence; batched before the
    # hosts' slice, a row keeps its place whatever the number of hosts.
    samples = places(settings, sources).map_with_index(maker)[samples_seen:_ENDLESS]
    batches_of_all = samples.batch(settings.batch_size // shards, batch_fn=collate)
    own = batches_of_all[shard::shards]
    # An element is a whole batch here: Grain's default of 500 would fill the memory.
    threads = 1 if settings.workers else 2
    read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2)
    dataset = own.to_iter_dataset(read)
    if settings.workers:
        options = grain.MultiprocessingOptions(
            num_workers=settings.workers, per_worker_buffer_size=2
        )
        start = functools.partial(start_worker, os.getpid())
        dataset = dataset.mp_prefetch(options, worker_init_fn=start)
    return dataset


def _check(settings: PipelineSettings, samples_seen: int, shard: int, shards: int) -> None:
    if settings.batch_size < 1 or settings.batch_size % shards:
        raise UserError(
            f"train.batch_size is {settings.batch_size}; it must be a multiple of the {shards} "
            "shards of the batch"
        )
    if not 0 <= shard < shards or samples_seen < 0:
        raise ValueError(f"shard {shard} of {shards} from sample {samples_seen} does not exist")
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
      log: counts of replaced and enlarged samples so far.
    """

    def __init__(self, dataset, sources: tuple[Source, ...], log: BadRecordLog):
        from absl import flags

        # Grain's workers read flags; a program not started by absl.app.run has not parsed any.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        self.sources = sources
        self.log = log
        self._iterator = iter(dataset)
        self._iterator.start_prefetch()

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        """The next batch: hr, lq [B, side, side, 3] uint8; index [B] int64; replaced [B] bool.

        Raises:
          UserError: too many records are bad, or a source has gone.
        """
        if self._iterator is None:
            raise ValueError("the batches were closed")
        # Copied out of the workers' shared memory, whose arrays must not outlive the workers.
        batch = {key: np.array(value) for key, value in next(self._iterator).items()}
        notes = json.loads(batch.pop("notes").tobytes())
        rows = [[BadRecord(**bad) for bad in row] for row in notes["bad"]]
        self.log.add(len(batch["index"]), notes["enlarged"], rows)
        if notes["lost"]:
            raise self.log.lost(notes["lost"][0])
        self.log.check()
        return batch

    def close(self) -> None:
        """Stop the workers; closing twice is allowed."""
        if self._iterator is not None:
            self._iterator.close()
            # Let go now: Grain's finalizers fail once the interpreter is going down.
            self._iterator = None

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def batches(
    settings: PipelineSettings,
    *,
    samples_seen: int = 0,
    shard: int = 0,
    shards: int = 1,
    bad_records_path: str | os.PathLike | None = None,
) -> Batches:
    """Open the data pipeline.

    The batches of all shards, put one after another by shard, are the same global batch for
    any number of shards and workers, and for any restart: sample k depends on the sources, the
    seed and k alone.

    Args:
      settings: what batches are made of.
      samples_seen: global number of samples that earlier batches held.
      shard, shards: which part of each global batch this process gets.
      bad_records_path: where to list unreadable records.

    Returns:
      A context manager that is also the iterator.

    Raises:
      UserError: a source or setting is wrong.
    """
    _check(settings, samples_seen, shard, shards)
    sources = parse_sources(settings.sources)
    dataset = _dataset(settings, sources, samples_seen, shard, shards)
    return Batches(dataset, sources, BadRecordLog(bad_records_path, settings.max_bad_fraction))
