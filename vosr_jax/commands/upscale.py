"""`vosr upscale`: restore files, folders and patterns of photos, and write a manifest."""

import argparse
import math
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vosr_jax
from vosr_jax.commands.interrupts import running
from vosr_jax.commands.output import Progress, told_of_compilation
from vosr_jax.errors import UserError
from vosr_jax.files import make_folder
from vosr_jax.quiet import open_devices
from vosr_jax.restoration.manifest import Manifest, manifest_path, read_records
from vosr_jax.restoration.presets import PRESETS
from vosr_jax.restoration.settings import AUTOENCODER_PRECISIONS, FIXES, PRECISIONS, SHAPES
from vosr_jax.weights.model_names import SHIPPED

if TYPE_CHECKING:  # these load NumPy and Pillow
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
    out = "folder of the results, or the file of the only one"
    add("-o", "--out", type=_out, required=True, metavar="OUT", help=out)
    add("-u", "--upscale", type=float, default=4.0, metavar="FACTOR", help="1 to 8, fractions too")
    add("-m", "--model", default="nano-onestep", help="name, export, workdir or official folder")
    add("--adapter", metavar="FOLDER", help="of vosr train-on or vosr convert --adapter, for -m")
    add("-r", "--recursive", action="store_true", help="search folders in folders too")
    add("--preset", choices=PRESETS, help="guidance or strength by name; other flags win")
    add("--strength", type=float, help="share of the model's change, 0 to 2; 1 if not given")
    add("--steps", type=int, help=f"sampling steps; {_OWN}")
    add("--schedule", choices=("linear", "cosine"), help=f"of the steps' times; {_OWN}")
    add("--guidance-scale", type=float, help=_OWN)
    interval = {"nargs": 2, "metavar": ("START", "END")}
    add("--guidance-interval", type=float, help=f"times within which it acts; {_OWN}", **interval)
    add("--weak-strength", type=float, help=_OWN)
    add("--colour-fix", choices=FIXES, help=_OWN)
    add("--seed", type=int, default=0, help="of the run; each picture's follows from it")
    add("--posterior", choices=("mode", "sample"), help=f"of the picture's latent; {_OWN}")
    short = "auto: what suits the device"
    add("--precision", choices=PRECISIONS, default="float32", help=f"denoiser's; {short}")
    add("--autoencoder-precision", choices=AUTOENCODER_PRECISIONS, default="float32", help=short)
    tiles = "denoiser's tiles in result pixels, 0: none; auto: 512, less if memory is short"
    add("--tile-size", type=_tile_size, default="auto", help=tiles)
    add("--tile-overlap", type=int, default=64, help="in result pixels")
    twice = "2: a second, shifted grid of tiles is averaged in; nearly twice the time"
    add("--tile-passes", type=int, choices=(1, 2), default=1, help=twice)
    add("--vae-tile-size", type=int, help="autoencoder's, 0: none; by memory if not given")
    add(
        "--shapes",
        choices=SHAPES,
        default="shared",
        help="exact: programs of each picture's own size, faster for many of one size",
    )
    add("--compare", action="store_true", help="also write input, bicubic and result side by side")
    redo = "replace what is there; else the same is skipped and another is an error"
    add("--overwrite", action="store_true", help=redo)
    add("--suffix", type=_suffix, default="", help="added to the results' names")
    form = "of the results; png and tif keep 16 bits; png if not given"
    add("--format", choices=_FORMATS, help=form)
    add("--strip-metadata", action="store_true", help="no EXIF, XMP, IPTC, texts, resolution")
    add("--max-megapixels", type=_megapixels, default=100, help="refuse larger inputs")
    add("--process-index", type=int, help="which part of the pictures this process restores")
    add("--process-count", type=int, help="how many processes share them; jax.distributed's own")
    upscale.set_defaults(run=run, starts=True)


def run(options: argparse.Namespace) -> int:
    """Restore every photo that is not done yet."""
    # Loads Pillow.
    from vosr_jax.restoration.jobs import plan_jobs, share_of

    plan = plan_jobs(
        options.paths,
        options.out,
        suffix=options.suffix,
        ending=options.format,
        recursive=options.recursive,
        compare=options.compare,
    )
    index, count = _process(options)
    mine = share_of(plan.jobs, index, count)
    if plan.ignored_line:
        print(plan.ignored_line, file=sys.stderr)
    make_folder(plan.folder)
    with warnings.catch_warnings():
        warnings.showwarning = _note
        return _restore(options, plan.folder, mine, (index, count))


def _restore(
    options: argparse.Namespace, folder: Path, jobs: "list[Job]", process: tuple[int, int]
) -> int:
    # These load JAX.
    from vosr_jax.restoration.restore_run import (
        Outcome,
        RunSettings,
        compare_later,
        pixel_counts,
        restore_all,
    )
    from vosr_jax.restoration.resume import run_record, standing_of

    open_devices()
    records = read_records(folder)
    upscaler = vosr_jax.Upscaler.from_pretrained(
        options.model, options.precision, options.autoencoder_precision, adapter=options.adapter
    )
    if options.model in SHIPPED:
        print(f"{options.model} is the small model of this package; -m 2.0 fetches the full one")
    settings = RunSettings(
        scale=options.upscale,
        upscaler=_given(options, upscaler),
        seed=options.seed,
        compare=options.compare,
        max_megapixels=options.max_megapixels,
        strip_metadata=options.strip_metadata,
    )
    record = run_record(upscaler, settings, options.preset, process)
    standing = standing_of(
        jobs, records, record, overwrite=options.overwrite, compare=options.compare
    )
    for _, why in standing.refused:
        print(f"failed: {why}", file=sys.stderr)
    if standing.finished:
        print(f"{len(standing.finished)} finished before and skipped; --overwrite redoes them")
    outcome = Outcome(failed=[job for job, _ in standing.refused])
    if standing.left or standing.uncompared:
        manifest = Manifest(manifest_path(folder, *process), record)
        watcher = Progress(pixel_counts(standing.left, options.max_megapixels))
        compare_later(standing.uncompared, settings, manifest, watcher, outcome)
        running()
        with told_of_compilation(watcher.say):
            restore_all(upscaler, standing.left, settings, manifest, watcher, outcome=outcome)
    return _closing_line(options, standing, outcome)


def _closing_line(options: argparse.Namespace, standing, outcome) -> int:
    failed = [str(job.source) for job in outcome.failed]
    left = set(standing.left)
    restored = len(left) - sum(job in left for job in outcome.failed)
    if left or standing.uncompared:
        compared = f", {len(standing.uncompared)} compared" if standing.uncompared else ""
        print(f"{restored} restored into {options.out}{compared}", end="")
        print(f", {len(failed)} failed: {', '.join(failed)}" if failed else "")
    return 0 if outcome.recorded and not failed else 1


def _given(options: argparse.Namespace, upscaler: "Upscaler") -> dict[str, Any]:
    """Make the upscaler's keyword arguments; raises UserError if the model refuses them."""
    given: dict[str, Any] = {} if options.preset is None else upscaler.preset(options.preset)
    explicit = {key: getattr(options, key) for key in (*_SAMPLER, "strength")}
    given |= {key: value for key, value in explicit.items() if value is not None}
    given |= {
        "tile_size": options.tile_size,
        "tile_overlap": options.tile_overlap,
        "tile_passes": options.tile_passes,
        "vae_tile_size": options.vae_tile_size,
        "colour_fix": options.colour_fix,
        "posterior": options.posterior,
        "shapes": options.shapes,
    }
    upscaler.check(scale=options.upscale, **given)
    return given


def _process(options: argparse.Namespace) -> tuple[int, int]:
    """(index, count) of the processes: from the options, or jax.distributed's if it is active."""
    if options.process_index is not None or options.process_count is not None:
        if options.process_index is None or options.process_count is None:
            raise UserError("--process-index and --process-count belong together; give both")
        return options.process_index, options.process_count
    jax = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized():
        return jax.process_index(), jax.process_count()
    return 0, 1


def _tile_size(text: str) -> int | str:
    try:
        return text if text == "auto" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is neither auto nor a whole number") from None


def _megapixels(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value > 0:
        raise argparse.ArgumentTypeError(f"'{text}' is no number above 0")
    return value


def _out(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; name a folder, or . for this one")
    return Path(text)


def _suffix(text: str) -> str:
    if any(mark in text for mark in ("/", "\\", "\0")):
        raise argparse.ArgumentTypeError(f"'{text}' would leave the folder; give no path")
    return text


def _note(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"note: {message}", file=sys.stderr)
