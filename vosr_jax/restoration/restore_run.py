"""Restore many photos on every device of this process."""

import contextlib
import dataclasses
import hashlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Protocol

import jax

from vosr_jax.errors import UserError
from vosr_jax.files.atomic import remove_parts, write_bytes
from vosr_jax.files.metadata import Metadata
from vosr_jax.files.photo_reading import MAX_MEGAPIXELS, photo_size, read_bytes, read_photo
from vosr_jax.files.photo_writing import bits_of, check_target, encode, write_photo
from vosr_jax.restoration.comparison import local_colour_shift, side_by_side
from vosr_jax.restoration.inputs import enlarged_size, picture_seed
from vosr_jax.restoration.jobs import Job
from vosr_jax.restoration.manifest import Manifest, Record
from vosr_jax.restoration.upscaler import Upscaler


class Watcher(Protocol):
    """Receiver of a run's progress."""

    def update(self, name: str, share: float) -> None:
        """Report the finished share of a photo, 0 to 1."""

    def end(self, name: str, line: str, *, failed: bool = False) -> None:
        """Report that a photo is finished or has failed."""

    def say(self, line: str) -> None:
        """Report anything else."""


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """Settings that all photos of a run share.

    Attributes:
      scale: of the result.
      upscaler: further keyword arguments of the upscaler, without seed and progress.
      seed: of the run; each photo's seed follows from it and the file's bytes.
      compare: whether a side-by-side comparison is written too.
      max_megapixels: larger photos are refused.
      strip_metadata: whether results omit the source's metadata, except its colour profile.
    """

    scale: float = 4.0
    upscaler: dict[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0
    compare: bool = False
    max_megapixels: float = MAX_MEGAPIXELS
    strip_metadata: bool = False


@dataclasses.dataclass
class Outcome:
    """How a run ended.

    Attributes:
      failed: jobs without a result.
      recorded: whether every write of the manifest succeeded.
    """

    failed: list[Job] = dataclasses.field(default_factory=list)
    recorded: bool = True


def pixel_counts(jobs: Sequence[Job], max_megapixels: float) -> dict[str, float]:
    """Every photo's part of the work, in pixels of the source."""
    counts = {}
    for job in jobs:
        try:
            width, height = photo_size(job.source, max_megapixels)
        except UserError:
            width = height = 1
        counts[job.name] = float(width * height)
    return counts


def restore_all(
    upscaler: Upscaler,
    jobs: Sequence[Job],
    settings: RunSettings,
    manifest: Manifest,
    watcher: Watcher,
    devices: Sequence[jax.Device] | None = None,
    outcome: Outcome | None = None,
) -> Outcome:
    """Restore every job; a failed one is reported and recorded, and the run continues.

    Args:
      upscaler: the model.
      jobs: photos, in order.
      settings: of the run.
      manifest: written after every photo.
      watcher: receives the progress.
      devices: share the jobs, each taking the next one when free; all devices of this process if
        None. Devices of one kind give the same result.
      outcome: extended by this run; a new one if None.

    Returns:
      The outcome.
    """
    devices = list(jax.local_devices() if devices is None else devices)[: len(jobs)]
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    outcome, stop = outcome or Outcome(), threading.Event()

    def work(worker: Upscaler) -> None:
        while not stop.is_set():
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            _attempt(worker, job, settings, manifest, watcher, outcome)

    if len(devices) <= 1:
        work(upscaler)
    else:
        _in_threads(work, [upscaler.on(device) for device in devices], stop)
    return outcome


def _in_threads(
    work: Callable[[Upscaler], None], workers: list[Upscaler], stop: threading.Event
) -> None:
    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:
        # After a keyboard interrupt every device still finishes its current photo.
        stop.set()


def compare_later(
    uncompared: Sequence[tuple[Job, Record]],
    settings: RunSettings,
    manifest: Manifest,
    watcher: Watcher,
    outcome: Outcome,
) -> None:
    """Write the comparisons of existing results, from the files alone."""
    for job, record in uncompared:
        try:
            source = read_photo(job.source, settings.max_megapixels)
            result = read_photo(job.target, float("inf"))
            shift = local_colour_shift(source, result)
            write_photo(side_by_side(source, result, shift), job.comparison)
        except Exception as error:
            watcher.say(f"failed: {_reason(error, job)}")
            outcome.failed.append(job)
            continue
        record_it = partial(manifest.add_comparison, job.name, record, _comparison_name(job))
        _record(record_it, watcher, outcome)


def _attempt(
    worker: Upscaler,
    job: Job,
    settings: RunSettings,
    manifest: Manifest,
    watcher: Watcher,
    outcome: Outcome,
) -> None:
    started = time.monotonic()
    try:
        entry = _restore(worker, job, settings, manifest, partial(watcher.update, job.name))
        entry["seconds"] = round(time.monotonic() - started, 3)
        width, height = entry["size"]
        watcher.end(job.name, f"{job.target} ({width}x{height}, {entry['seconds']:.1f} s)")
    except Exception as error:
        # One photo's failure, such as running out of memory, must not stop the run.
        reason = _reason(error, job)
        entry = {"status": "failed", "source": str(job.source), "error": reason}
        watcher.end(job.name, f"failed: {reason}", failed=True)
        outcome.failed.append(job)
    _record(partial(manifest.add, job.name, entry), watcher, outcome)


def _reason(error: Exception, job: Job) -> str:
    if isinstance(error, UserError):
        return str(error)
    # The first line of a compiler's long message says what was wrong.
    return f"{job.source}: {type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _record(write: Callable[[], None], watcher: Watcher, outcome: Outcome) -> None:
    try:
        write()
    except UserError as error:
        if outcome.recorded:
            watcher.say(f"failed: {error}")
        outcome.recorded = False


def _comparison_name(job: Job) -> str:
    """The comparison's name in the manifest: beside the result."""
    return PurePosixPath(job.name).with_name(job.comparison.name).as_posix()


def _restore(
    worker: Upscaler,
    job: Job,
    settings: RunSettings,
    manifest: Manifest,
    progress: Callable[[float], None],
) -> dict[str, Any]:
    content = read_bytes(job.source)
    photo = read_photo(content, settings.max_megapixels, str(job.source))
    if settings.strip_metadata:
        photo = dataclasses.replace(photo, metadata=Metadata())
    size = enlarged_size(photo.size, settings.scale)
    check_target(job.target, photo.alpha is not None, size, photo.bits)
    for path in (job.target, job.comparison):
        remove_parts(path)
    seed = picture_seed(settings.seed, content)
    given = settings.upscaler | {"progress": progress}
    wanted = given.pop("tile_size", "auto"), given.pop("vae_tile_size", None)
    tiles = worker.tile_sizes(size, *wanted, given.get("shapes", "shared"))
    result = worker(
        photo,
        scale=settings.scale,
        tile_size=tiles[0],
        vae_tile_size=tiles[1],
        seed=seed,
        output="photo",
        **given,
    )
    shift = local_colour_shift(photo, result)
    encoded = encode(result, job.target)
    entry = {
        "status": "begun",
        "device": 0 if worker.device is None else worker.device.id,
        "source": str(job.source),
        "source_sha256": hashlib.sha256(content).hexdigest(),
        "result_sha256": hashlib.sha256(encoded).hexdigest(),
        "seed": seed,
        "size": list(result.size),
        "bits": result.bits if bits_of(job.target) == 16 else 8,
        "tile_size": tiles[0],
        "vae_tile_size": tiles[1],
        "colour_shift": round(shift, 3),
    }
    # The comparison comes first, because an existing result counts as finished.
    if settings.compare:
        entry["comparison"] = _comparison_name(job)
        write_photo(side_by_side(photo, result, shift), job.comparison)
    with contextlib.suppress(UserError):  # reported when the finished photo is recorded
        manifest.add(job.name, entry)
    write_bytes(job.target, encoded)
    return entry | {"status": "done"}
