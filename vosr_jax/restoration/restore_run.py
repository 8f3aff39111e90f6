"""A run over many pictures, on every device of this process."""

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
from vosr_jax.files.photo_reading import MAX_MEGAPIXELS, read_bytes, read_photo
from vosr_jax.files.photo_writing import bits_of, check_target, encode, write_photo
from vosr_jax.restoration.comparison import local_colour_shift, side_by_side
from vosr_jax.restoration.jobs import Job
from vosr_jax.restoration.manifest import Manifest, Record
from vosr_jax.restoration.seeds import picture_seed
from vosr_jax.restoration.shapes import enlarged_size
from vosr_jax.restoration.upscaler import Upscaler


class Watcher(Protocol):
    """Who is told of a run."""

    def update(self, name: str, share: float) -> None:
        """A picture is finished to this share."""

    def end(self, name: str, line: str, *, failed: bool = False) -> None:
        """A picture is finished or given up."""

    def say(self, line: str) -> None:
        """Something else."""


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """What all pictures of a run share.

    Attributes:
      scale: of the result.
      upscaler: further keyword arguments of the upscaler, without seed and progress.
      seed: of the run; every picture's own follows from it and the file's bytes.
      compare: whether a side-by-side picture is written too.
      max_megapixels: larger pictures are refused.
      strip_metadata: whether results go without what the source says of itself, colours apart.
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
      recorded: whether the manifest could be written every time.
    """

    failed: list[Job] = dataclasses.field(default_factory=list)
    recorded: bool = True


def restore_all(
    upscaler: Upscaler,
    jobs: Sequence[Job],
    settings: RunSettings,
    manifest: Manifest,
    watcher: Watcher,
    devices: Sequence[jax.Device] | None = None,
    outcome: Outcome | None = None,
) -> Outcome:
    """Restore every job; one that fails is told of and recorded, and the rest goes on.

    Args:
      upscaler: the model.
      jobs: pictures, in order.
      settings: of the run.
      manifest: is written after every picture.
      watcher: is told of progress.
      devices: that share the jobs, each taking the next one when it is free; all of this
        process if None. The result does not depend on who made it where they are alike.
      outcome: is added to; a new one if None.

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


def _in_threads(work: Callable[[Upscaler], None], workers: list[Upscaler], stop) -> None:
    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:
        # Interrupted from the keyboard: every device still finishes its present picture.
        stop.set()


def compare_later(
    uncompared: Sequence[tuple[Job, Record]],
    settings: RunSettings,
    manifest: Manifest,
    watcher: Watcher,
    outcome: Outcome,
) -> None:
    """Make comparisons of results that are there, from the files alone."""
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


def _attempt(worker: Upscaler, job: Job, settings, manifest, watcher, outcome: Outcome) -> None:
    started = time.monotonic()
    try:
        entry = _restore(worker, job, settings, manifest, partial(watcher.update, job.name))
        entry["seconds"] = round(time.monotonic() - started, 3)
        width, height = entry["size"]
        watcher.end(job.name, f"{job.target} ({width}x{height}, {entry['seconds']:.1f} s)")
    except Exception as error:
        # Whatever one picture meets, out of memory say, the rest of the run goes on.
        reason = _reason(error, job)
        entry = {"status": "failed", "source": str(job.source), "error": reason}
        watcher.end(job.name, f"failed: {reason}", failed=True)
        outcome.failed.append(job)
    _record(partial(manifest.add, job.name, entry), watcher, outcome)


def _reason(error: Exception, job: Job) -> str:
    if isinstance(error, UserError):
        return str(error)
    # Of a compiler's long message the first line says what was wrong.
    return f"{job.source}: {type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _record(write: Callable[[], None], watcher: Watcher, outcome: Outcome) -> None:
    try:
        write()
    except UserError as error:
        if outcome.recorded:
            watcher.say(f"failed: {error}")
        outcome.recorded = False


def _comparison_name(job: Job) -> str:
    """As the manifest names it: beside the result."""
    return PurePosixPath(job.name).with_name(job.comparison.name).as_posix()


def _restore(
    worker: Upscaler, job: Job, settings: RunSettings, manifest: Manifest, progress
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
    # The comparison first: a result that is there is finished.
    if settings.compare:
        entry["comparison"] = _comparison_name(job)
        write_photo(side_by_side(photo, result, shift), job.comparison)
    with contextlib.suppress(UserError):  # is told of when the finished picture is recorded
        manifest.add(job.name, entry)
    write_bytes(job.target, encoded)
    return entry | {"status": "done"}
