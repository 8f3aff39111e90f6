"""A run over many pictures, on every device of this process."""

import dataclasses
import hashlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax

from vosr_jax.errors import UserError
from vosr_jax.restoration.comparison import local_colour_shift, side_by_side
from vosr_jax.restoration.jobs import Job
from vosr_jax.restoration.manifest import Manifest
from vosr_jax.restoration.picture import (
    MAX_MEGAPIXELS,
    check_target,
    read_photograph,
    remove_parts,
    write_picture,
)
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
    """

    scale: float = 4.0
    upscaler: dict[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0
    compare: bool = False
    max_megapixels: float = MAX_MEGAPIXELS


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

    Returns:
      The outcome.
    """
    devices = list(jax.local_devices() if devices is None else devices)[: len(jobs)]
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    outcome, stop = Outcome(), threading.Event()

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


def _attempt(worker: Upscaler, job: Job, settings, manifest, watcher, outcome: Outcome) -> None:
    started = time.monotonic()
    try:
        entry = _restore(worker, job, settings, lambda share: watcher.update(job.name, share))
        entry["seconds"] = round(time.monotonic() - started, 3)
        width, height = entry["size"]
        watcher.end(job.name, f"{job.target} ({width}x{height}, {entry['seconds']:.1f} s)")
    except Exception as error:
        # Whatever one picture meets, out of memory say, the rest of the run goes on.
        reason = str(error)
        if not isinstance(error, UserError):
            # Of a compiler's long message the first line says what was wrong.
            reason = f"{job.source}: {type(error).__name__}: {reason.partition(chr(10))[0]}"
        entry = {"status": "failed", "source": str(job.source), "error": reason}
        watcher.end(job.name, f"failed: {reason}", failed=True)
        outcome.failed.append(job)
    try:
        manifest.add(job.name, entry)
    except UserError as error:
        if outcome.recorded:
            watcher.say(f"failed: {error}")
        outcome.recorded = False


def _restore(worker: Upscaler, job: Job, settings: RunSettings, progress) -> dict[str, Any]:
    photograph = read_photograph(job.source, settings.max_megapixels)
    size = enlarged_size(photograph.rgb.size, settings.scale)
    check_target(job.target, photograph.alpha is not None, size)
    comparison = job.target.with_name(f"{job.target.stem}-compare.png")
    for path in (job.target, comparison):
        remove_parts(path)
    content = job.source.read_bytes()
    seed = picture_seed(settings.seed, content)
    given = settings.upscaler | {"progress": progress}
    wanted = given.pop("tile_size", "auto"), given.pop("vae_tile_size", None)
    tiles = worker.tile_sizes(size, *wanted)
    result = worker(
        photograph,
        scale=settings.scale,
        tile_size=tiles[0],
        vae_tile_size=tiles[1],
        seed=seed,
        **given,
    )
    shift = local_colour_shift(photograph.rgb, result)
    # The comparison first: a picture that is there is finished.
    if settings.compare:
        compared = side_by_side(photograph.rgb, result, shift)
        write_picture(compared, comparison)
    write_picture(result, job.target)
    return {
        "status": "done",
        "device": 0 if worker.device is None else worker.device.id,
        "source": str(job.source),
        "source_sha256": hashlib.sha256(content).hexdigest(),
        "seed": seed,
        "size": list(result.size),
        "tile_size": tiles[0],
        "vae_tile_size": tiles[1],
        "colour_shift": round(shift, 3),
    }
