"""`vosr upscale`: files, folders and patterns in, restored pictures and their manifest out."""

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vosr_jax.errors import UserError
from vosr_jax.restoration.presets import PRESETS

if TYPE_CHECKING:
    from vosr_jax.restoration.jobs import Job
    from vosr_jax.restoration.upscaler import Upscaler

_FORMATS = ("png", "jpg", "webp", "tif")
_SAMPLER = ("steps", "schedule", "guidance_scale", "guidance_interval", "weak_strength")
_OWN = "the model's own if not given"


def add_parser(commands) -> None:
    """Describe the command to argparse's subparsers."""
    upscale = commands.add_parser(
        "upscale",
        help="restore pictures",
        description="Restore and enlarge pictures. A manifest.json beside the results says what "
        "made each; running the same command again goes on where a run has stopped.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = upscale.add_argument
    add("paths", nargs="+", metavar="PATH", help="pictures, folders, or quoted patterns (**/*.jpg)")
    add("-o", "--out", type=Path, required=True, metavar="OUT", help="folder of the results")
    add("-u", "--upscale", type=float, default=4.0, metavar="FACTOR", help="1 to 8, fractions too")
    add("-m", "--model", default="nano-onestep", help="name, export, workdir or official folder")
    add("-r", "--recursive", action="store_true", help="search folders in folders too")
    add("--preset", choices=PRESETS, help="guidance by name; what is given beside it wins")
    add("--steps", type=int, help=f"sampling steps; {_OWN}")
    add("--schedule", choices=("linear", "cosine"), help=f"of the steps' times; {_OWN}")
    add("--guidance-scale", type=float, help=_OWN)
    interval = {"nargs": 2, "metavar": ("START", "END")}
    add("--guidance-interval", type=float, help=f"times within which it acts; {_OWN}", **interval)
    add("--weak-strength", type=float, help=_OWN)
    add("--colour-fix", choices=("adain", "wavelet", "none"), help=_OWN)
    add("--seed", type=int, default=0, help="of the run; each picture's follows from it")
    add("--precision", choices=("float32", "mixed", "bfloat16"), default="float32", help="to use")
    tiles = "denoiser's tiles in result pixels, 0: none; auto: 512, less if memory is short"
    add("--tile-size", type=_tile_size, default="auto", help=tiles)
    add("--tile-overlap", type=int, default=64, help="in result pixels")
    add("--vae-tile-size", type=int, help="autoencoder's, 0: none; by memory if not given")
    add("--shapes", choices=("exact", "buckets"), default="exact", help="buckets: compile less")
    add("--compare", action="store_true", help="also write input, bicubic and result side by side")
    add("--overwrite", action="store_true", help="replace results that exist; else skip them")
    add("--suffix", default="", help="added to the results' names")
    add("--format", choices=_FORMATS, default="png", help="of the results")
    add("--max-megapixels", type=float, default=100, help="refuse larger inputs")
    add("--process-index", type=int, help="which part of the pictures this process restores")
    add("--process-count", type=int, help="how many processes share them; jax.distributed's own")
    upscale.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Restore every picture that is left to do."""
    from vosr_jax.restoration.jobs import plan_jobs, share_of

    planned = plan_jobs(
        options.paths,
        options.out,
        suffix=options.suffix,
        ending=options.format,
        recursive=options.recursive,
    )
    index, count = _process(options)
    mine = share_of(planned, index, count)
    there = set() if options.overwrite else {job for job in mine if job.target.exists()}
    jobs = [job for job in mine if job not in there]
    skipped = [job for job in mine if job in there]
    if skipped:
        print(f"{len(skipped)} finished before and skipped; --overwrite makes them again")
    if not jobs:
        return 0
    from vosr_jax.restoration.picture import make_folder

    make_folder(options.out)
    with warnings.catch_warnings():
        warnings.showwarning = _note
        return _restore(options, jobs, [job.name for job in skipped], (index, count))


def _restore(
    options: argparse.Namespace, jobs: "list[Job]", skipped: list[str], process: tuple[int, int]
) -> int:
    from vosr_jax.commands.progress import Progress
    from vosr_jax.restoration.manifest import Manifest, manifest_path
    from vosr_jax.restoration.run import RunSettings, restore_all
    from vosr_jax.restoration.upscaler import Upscaler

    upscaler = Upscaler.from_pretrained(options.model, precision=options.precision)
    given = _given(options, upscaler)
    record = _record(options, upscaler, given, process)
    manifest = Manifest(manifest_path(options.out, *process), record)
    other = sum(map(manifest.made_otherwise, skipped))
    if other:
        print(f"{other} of those were made with other settings, see manifest.json")
    manifest.found(skipped)
    settings = RunSettings(
        options.upscale, given, options.seed, options.compare, options.max_megapixels
    )
    weights = _weights(jobs, options.max_megapixels)
    outcome = restore_all(upscaler, jobs, settings, manifest, Progress(weights))
    failed = ", ".join(str(job.source) for job in outcome.failed)
    print(f"{len(jobs) - len(outcome.failed)} restored into {options.out}", end="")
    print(f", {len(outcome.failed)} failed: {failed}" if failed else "")
    return 0 if outcome.recorded and not outcome.failed else 1


def _given(options: argparse.Namespace, upscaler: "Upscaler") -> dict[str, Any]:
    """Keyword arguments of the upscaler; raises UserError where the model refuses them."""
    given: dict[str, Any] = {} if options.preset is None else upscaler.preset(options.preset)
    explicit = {key: getattr(options, key) for key in _SAMPLER}
    given |= {key: value for key, value in explicit.items() if value is not None}
    given |= {
        "tile_size": options.tile_size,
        "tile_overlap": options.tile_overlap,
        "vae_tile_size": options.vae_tile_size,
        "colour_fix": options.colour_fix,
        "shapes": options.shapes,
    }
    upscaler.check(scale=options.upscale, **given)
    return given


def _record(options, upscaler: "Upscaler", given: dict[str, Any], process) -> dict[str, Any]:
    """What the manifest says of the run."""
    import dataclasses

    import jax

    from vosr_jax.restoration.fingerprint import device_names, versions, weights_sha256

    sampler = upscaler.sampler(**{key: given[key] for key in _SAMPLER if key in given})
    settings = dataclasses.asdict(sampler) | {
        "scale": options.upscale,
        "preset": options.preset,
        "precision": options.precision,
        "colour_fix": options.colour_fix or upscaler.model.colour_fix,
        "tile_size": options.tile_size,
        "tile_overlap": options.tile_overlap,
        "shapes": options.shapes,
    }
    settings["guidance_interval"] = list(settings["guidance_interval"])
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "settings": settings,
        "seed": options.seed,
        "model": {"name": upscaler.model.name, "sha256": weights_sha256(upscaler.model)},
        "versions": versions(),
        "devices": device_names(jax.local_devices()),
        "process": list(process),
    }


def _weights(jobs: "list[Job]", max_megapixels: float) -> dict[str, float]:
    """Every picture's part of the work: its pixels."""
    from vosr_jax.restoration.picture import picture_size

    weights = {}
    for job in jobs:
        try:
            width, height = picture_size(job.source, max_megapixels)
        except UserError:
            width = height = 1
        weights[job.name] = float(width * height)
    return weights


def _process(options: argparse.Namespace) -> tuple[int, int]:
    """(index, count) as given, or jax.distributed's if that is at work."""
    if options.process_index is not None or options.process_count is not None:
        if options.process_index is None or options.process_count is None:
            raise UserError("--process-index and --process-count belong together; give both")
        return options.process_index, options.process_count
    jax = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized():
        return jax.process_index(), jax.process_count()
    return 0, 1


def _tile_size(text: str) -> int | str:
    return text if text == "auto" else int(text)


def _note(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"note: {message}", file=sys.stderr)
