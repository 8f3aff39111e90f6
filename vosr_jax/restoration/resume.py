"""The record of a run, and its jobs sorted into finished, left to do and blocked by other files.

An existing result is kept if the manifest says that it has the same source and settings. Any other
file in its place is an error, because it would be taken for this run's result.
"""

import dataclasses
import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from vosr_jax.errors import UserError
from vosr_jax.restoration.fingerprint import device_names, versions, weights_sha256
from vosr_jax.restoration.jobs import Job
from vosr_jax.restoration.manifest import Record
from vosr_jax.restoration.restore_run import RunSettings
from vosr_jax.restoration.settings import divide
from vosr_jax.restoration.upscaler import Upscaler

_ADVICE = "--overwrite replaces it, or choose another folder for -o"


def run_record(
    upscaler: Upscaler, settings: RunSettings, preset: str | None, process: tuple[int, int]
) -> dict[str, Any]:
    """The manifest's record of a run: what all of its results have in common.

    Args:
      upscaler: the model.
      settings: of the run; `settings.upscaler` lacks at most some of the sampler's.
      preset: the name that some of them came from, or None.
      process: (index, count) among the processes that share the photos.
    """
    model, given = upscaler.model, settings.upscaler
    sampler = upscaler.sampler(**divide(given)[0])
    chosen = dataclasses.asdict(sampler) | {
        "scale": settings.scale,
        "preset": preset,
        "strength": given.get("strength", 1.0),
        "precision": model.precision,
        "autoencoder_precision": model.autoencoder_precision,
        "posterior": given["posterior"] or model.posterior,
        "colour_fix": given["colour_fix"] or model.colour_fix,
        "tile_size": given["tile_size"],
        "tile_overlap": given["tile_overlap"],
        "tile_passes": given["tile_passes"],
        "shapes": given["shapes"],
        "strip_metadata": settings.strip_metadata,
    }
    chosen["guidance_interval"] = list(chosen["guidance_interval"])
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "settings": chosen,
        "seed": settings.seed,
        "model": {"name": model.name, "sha256": weights_sha256(model)},
        "versions": versions(),
        "devices": device_names(jax.local_devices()),
        "process": list(process),
    }


@dataclasses.dataclass
class Standing:
    """Jobs by status.

    Attributes:
      left: to restore.
      finished: results of the same source and settings.
      uncompared: (job, record) of finished ones that still need a comparison.
      refused: (job, why) of those whose target is another file.
    """

    left: list[Job] = dataclasses.field(default_factory=list)
    finished: list[Job] = dataclasses.field(default_factory=list)
    uncompared: list[tuple[Job, Record]] = dataclasses.field(default_factory=list)
    refused: list[tuple[Job, str]] = dataclasses.field(default_factory=list)


def standing_of(
    jobs: Sequence[Job],
    records: Mapping[str, Record],
    run: dict[str, Any],
    *,
    overwrite: bool = False,
    compare: bool = False,
) -> Standing:
    """Sort jobs by the contents of the output folder.

    Args:
      jobs: of this process.
      records: of the folder, by `manifest.read_records`.
      run: the record of this run.
      overwrite: whether every job is left to do.
      compare: whether comparisons are wanted.

    Raises:
      UserError: the folder holds results of other settings, which this run would mix with its own.
    """
    standing = Standing()
    for job in jobs:
        record = records.get(job.name)
        if overwrite or not _is_there(job.target):
            standing.left.append(job)
            continue
        if record is None:
            why = f"{job.target} is there and no manifest says what made it; {_ADVICE}"
            standing.refused.append((job, why))
            continue
        if not record.made(job.target):
            standing.left.append(job)
            continue
        other = _other_source(job, record)
        if other is not None:
            standing.refused.append((job, f"{job.target} {other}; {_ADVICE}"))
            continue
        other = _other_run(record.run, run)
        if other is not None:
            source = record.entry.get("source")
            raise UserError(f"{job.target} was made from {source} with {other}; {_ADVICE}")
        standing.finished.append(job)
        if compare and not job.comparison.exists():
            standing.uncompared.append((job, record))
    return standing


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _other_source(job: Job, record: Record) -> str | None:
    try:
        digest = hashlib.sha256(job.source.read_bytes()).hexdigest()
    except OSError:
        return f"is there, but {job.source} cannot be read"
    if digest == record.entry.get("source_sha256"):
        return None
    before = str(record.entry.get("source"))
    if before == str(job.source):
        return f"was made from {job.source} as it was before a change"
    return f"was made from {before}, not from {job.source}"


def _other_run(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """Describe the first difference between two runs; ignore settings that the older one lacks."""
    old, new = before.get("settings") or {}, now["settings"]
    for key in new:
        if key in old and old[key] != new[key]:
            return f"{key} {_said(old[key])}, not {_said(new[key])}"
    if before.get("seed") != now["seed"]:
        return f"seed {before.get('seed')}, not {now['seed']}"
    models = [run.get("model") or {} for run in (before, now)]
    if models[0].get("sha256") != models[1].get("sha256"):
        names = [model.get("name") for model in models]
        if names[0] == names[1]:
            return f"other weights of model {names[0]}"
        return f"model {names[0]}, not {names[1]}"
    return None


def _said(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
