"""`vosr data`: prepare and inspect the user's photos, and make evaluation pairs from them."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from vosr_jax.data.preparation import FilterSettings
from vosr_jax.errors import UserError

_SOURCES = "as data.sources: path[:weight],... (docs/data.md)"


def add_parser(commands) -> None:
    """Describe the command to argparse's subparsers."""
    data = commands.add_parser("data", help="prepare and look at training pictures")
    tasks = data.add_subparsers(required=True, metavar="TASK")
    _add_prepare(tasks)
    _add_inspect(tasks)
    _add_make_eval(tasks)


def _add(tasks, name: str, description: str, run):
    task = tasks.add_parser(
        name,
        help=description[0].lower() + description[1:],
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    task.set_defaults(run=run)
    return task.add_argument


def _add_prepare(tasks) -> None:
    own = FilterSettings()
    add = _add(tasks, "prepare", "Filter pictures and write them as ArrayRecord shards", prepare)
    add("sources", metavar="SOURCES", help=_SOURCES)
    add("-o", "--out", type=Path, required=True, metavar="FOLDER", help="of datasets")
    add("--min-side", type=int, default=own.min_side, help="of the shorter side, pixels")
    add("--max-blockiness", type=float, default=own.max_blockiness, help="0: any")
    add("--min-sharpness", type=float, default=own.min_sharpness, help="0: any")
    add(
        *("--duplicate-distance", "-d"),
        type=int,
        default=own.duplicate_distance,
        help="bits of 64 in which hashes of duplicates may differ; -1: keep duplicates",
    )
    add("--shard-megabytes", type=int, default=1024, help="largest size of a shard")
    add("--workers", type=int, default=1, help="processes of the DirectRunner")
    add("--runner", default="DirectRunner", help="Beam's: DataflowRunner, SparkRunner, ...")
    add("--beam", action="append", default=[], metavar="--option=value", help="for the runner")


def _add_inspect(tasks) -> None:
    add = _add(tasks, "inspect", "Draw pairs with what was done to them; time the making", inspect)
    add("sources", nargs="?", metavar="SOURCES", help=f"{_SOURCES}; scikit-image's if left out")
    add("-o", "--out", type=Path, default=Path("pairs.png"), metavar="FILE", help="the sheet")
    add("--count", type=int, default=8, help="pairs on the sheet")
    add("--seconds", type=float, default=5.0, help="for how long pairs are made")
    add("--run", type=Path, dest="workdir", metavar="WORKDIR", help="take the settings of this run")
    add("--indices", metavar="5,7", help="these samples, as incidents.jsonl names them")
    _add_degradation(add)


def _add_make_eval(tasks) -> None:
    add = _add(tasks, "make-eval", "Write fixed pairs for eval.hr and eval.lr", make_eval)
    add("sources", nargs="?", metavar="SOURCES", help=f"{_SOURCES}; scikit-image's if left out")
    add("-o", "--out", type=Path, required=True, metavar="FOLDER", help="gets hr/ and lr/")
    add("--count", type=int, default=0, help="pictures, drawn by the seed; 0: all")
    add("--crops", type=int, default=1, help="of each picture")
    _add_degradation(add)


def _add_degradation(add) -> None:
    add("--crop", type=int, default=256, help="side of the HR crops, pixels")
    add("--scale", type=int, default=4, help="HR side over LR side")
    add("--seed", type=int, default=0, help="of order, crops and degradation")
    add("--mixture", default="official", metavar="RECIPES", help="as official:0.5,mild:0.5")
    add("--jpeg", choices=("official", "libjpeg"), default="official", help="of official")


def _check(options: argparse.Namespace, positive: Sequence[str]) -> None:
    for name in positive:
        if getattr(options, name) < 1:
            raise UserError(f"--{name} must be at least 1, not {getattr(options, name)}")
    if options.crop % options.scale:
        raise UserError(f"--crop {options.crop} must be a multiple of --scale {options.scale}")
    if options.seed < 0:
        raise UserError(f"--seed must not be negative, not {options.seed}")


def prepare(options: argparse.Namespace) -> int:
    """Run the Beam pipeline and print what it dropped."""
    if options.workers < 1 or options.shard_megabytes < 1:
        raise UserError("--workers and --shard-megabytes must be at least 1")
    # Loads NumPy and Pillow.
    from vosr_jax.data.preparation.prepare import prepare as run

    settings = FilterSettings(
        options.min_side,
        options.max_blockiness,
        options.min_sharpness,
        options.duplicate_distance,
    )
    beam = list(options.beam)
    if options.workers > 1:
        beam += [
            "--direct_running_mode=multi_processing",
            f"--direct_num_workers={options.workers}",
        ]
    done = run(
        options.sources,
        options.out,
        settings,
        runner=options.runner,
        beam_options=beam,
        max_shard_bytes=options.shard_megabytes << 20,
    )
    print(f"kept {done.kept}", *(f"{reason} {n}" for reason, n in sorted(done.dropped.items())))
    if done.dropped:
        print(f"dropped ones, with reasons: {done.report}")
    print(f"train with --config.data.sources={done.folder}")
    return 0


def inspect(options: argparse.Namespace) -> int:
    """Write the contact sheet and print rates."""
    _check(options, ("count", "crop", "scale"))
    # Loads OpenCV.
    from vosr_jax.data.inspection import inspect as look

    settings = _inspected(options)
    seen = look(settings, options.count, options.seconds, _indices(options.indices))
    for name, length, share in seen.sources:
        print(f"{name}: {length} pictures, {share:.0%} of the samples")
    try:
        seen.sheet.save(options.out)
    except (OSError, ValueError) as error:
        raise UserError(f"{options.out} cannot be written ({error}); choose another -o") from error
    side = settings.crop_size
    print(f"{seen.pairs_per_second:.1f} pairs/s per core from file to pair, of {side} px")
    print(f"{seen.degraded_per_second:.1f} pairs/s per core for the degradation alone")
    print(f"{len(seen.bad)} unreadable, {seen.enlarged} enlarged, of {seen.seen} samples")
    for bad in seen.bad:
        print(f"unreadable: {bad.record} ({bad.reason})")
    print(f"wrote {options.out}")
    return 0


def _inspected(options: argparse.Namespace):
    """The pipeline's settings: a run's, or those from the options."""
    if options.workdir is not None:
        # These load JAX, which other settings do not need.
        from vosr_jax.config import validate
        from vosr_jax.training.setup import pipeline_settings
        from vosr_jax.weights.saved_run import read_config

        own = pipeline_settings(validate(read_config(options.workdir)))
        return dataclasses.replace(own, cache_bytes=0, workers=0)
    # Loads OpenCV.
    from vosr_jax.data.pipeline import PipelineSettings

    return PipelineSettings(
        sources=options.sources,
        seed=options.seed,
        crop_size=options.crop,
        scale=options.scale,
        degradation=_degradation(options),
        cache_bytes=0,
    )


def _degradation(options: argparse.Namespace):
    # Loads OpenCV.
    from vosr_jax.data.degradation import DegradationSettings, RealESRGANSettings

    return DegradationSettings(options.mixture, official=RealESRGANSettings(jpeg=options.jpeg))


def _indices(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = (-1,)
    if min(found) < 0:
        raise UserError(f"--indices {text}: give positions of samples, as 5,7")
    return found


def make_eval(options: argparse.Namespace) -> int:
    """Write the pairs."""
    _check(options, ("crops", "crop", "scale"))
    # Loads OpenCV.
    from vosr_jax.data.validation import write_evaluation_set

    count, unreadable = write_evaluation_set(
        options.sources,
        options.out,
        count=options.count,
        crop_size=options.crop,
        scale=options.scale,
        seed=options.seed,
        degradation=_degradation(options),
        crops_per_picture=options.crops,
    )
    for name in unreadable:
        print(f"passed over: {name}")
    print(f"wrote {count} pairs; evaluate with")
    print(f"--config.eval.hr={options.out}/hr --config.eval.lr={options.out}/lr")
    return 0
