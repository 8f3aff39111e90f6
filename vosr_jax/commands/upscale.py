"""`vosr upscale`: files and folders of pictures in, restored ones out."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vosr_jax.errors import UserError

if TYPE_CHECKING:
    from vosr_jax.restoration.upscaler import Upscaler

_FORMATS = ("png", "jpg", "webp", "tif")


def add_parser(commands) -> None:
    """Describe the command to argparse's subparsers."""
    upscale = commands.add_parser(
        "upscale",
        help="restore pictures",
        description="Restore and enlarge pictures; folders are searched for pictures, one level.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = upscale.add_argument
    add("paths", nargs="+", type=Path, metavar="PATH", help="pictures or folders of pictures")
    add("-o", "--out", type=Path, required=True, metavar="OUT", help="folder of the results")
    add("-u", "--upscale", type=float, default=4.0, metavar="FACTOR", help="1 to 8, fractions too")
    add("-m", "--model", default="nano", help="name, export, workdir or official folder")
    add("--steps", type=int, help="sampling steps; the model's own if not given")
    add("--guidance-scale", type=float, help="the model's own if not given")
    add("--weak-strength", type=float, help="the model's own if not given")
    add("--tile-size", type=int, default=512, help="denoiser's tiles in result pixels, 0: none")
    add("--tile-overlap", type=int, default=64, help="in result pixels")
    add("--colour-fix", choices=("adain", "wavelet", "none"), help="the model's own if not given")
    add("--seed", type=int, default=0, help="of the noise")
    add("--compare", action="store_true", help="also write input, bicubic and result side by side")
    add("--overwrite", action="store_true", help="replace results that exist; else skip them")
    add("--suffix", default="", help="added to the results' names")
    add("--format", choices=_FORMATS, default="png", help="of the results")
    upscale.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Restore every picture that is left to do."""
    sources = list(_sources(options.paths, options.out))
    jobs = _jobs(sources, options)
    skipped = len(sources) - len(jobs)
    if skipped:
        print(f"{skipped} finished before and skipped; --overwrite makes them again")
    if not jobs:
        return 0
    from vosr_jax.restoration.picture import make_folder
    from vosr_jax.restoration.upscaler import Upscaler

    make_folder(options.out)
    upscaler = Upscaler.from_pretrained(options.model)
    failed: list[Path] = []
    started = time.monotonic()
    for number, (source, target) in enumerate(jobs):
        progress = _Progress(started, number, len(jobs), source.name)
        try:
            _restore(upscaler, source, target, options, progress)
        except Exception as error:
            # Whatever one picture meets, out of memory say, the rest of the run goes on.
            progress.clear()
            known = isinstance(error, UserError)
            reason = str(error) if known else f"{source}: {type(error).__name__}: {error}"
            print(f"failed: {reason}", file=sys.stderr)
            failed.append(source)
    print(f"{len(jobs) - len(failed)} restored into {options.out}", end="")
    print(f", {len(failed)} failed: {', '.join(map(str, failed))}" if failed else "")
    return 1 if failed else 0


def _sources(paths: Sequence[Path], out: Path) -> Iterator[Path]:
    """Files as given, folders' pictures by name; OUT itself is not searched."""
    from vosr_jax.restoration.picture import SUFFIXES

    for path in paths:
        if not path.is_dir():
            yield path
            continue
        found = sorted(
            file
            for file in path.iterdir()
            if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
        )
        if not found:
            raise UserError(f"{path} holds no pictures ({', '.join(SUFFIXES)})")
        if path.resolve() == out.resolve():
            raise UserError(f"{path} is both input and output folder; choose another for -o")
        yield from found


def _jobs(sources: Sequence[Path], options: argparse.Namespace) -> list[tuple[Path, Path]]:
    """(source, target) of what is left to do."""
    jobs: dict[Path, Path] = {}
    for source in sources:
        target = options.out / f"{source.stem}{options.suffix}.{options.format}"
        if jobs.setdefault(target, source) != source:
            raise UserError(
                f"{jobs[target]} and {source} would both be written to {target}; "
                "restore them into different folders"
            )
        if target.exists() and target.resolve() == source.resolve():
            raise UserError(f"{source} would be replaced by its result; set --suffix or another -o")
    left = [(s, t) for t, s in jobs.items() if options.overwrite or not t.exists()]
    return left


def _restore(
    upscaler: "Upscaler", source: Path, target: Path, options: argparse.Namespace, progress
) -> None:
    from vosr_jax.restoration.picture import check_target, read_photograph, write_picture

    photograph = read_photograph(source)
    check_target(target, photograph.alpha is not None)
    result = upscaler(
        photograph,
        scale=options.upscale,
        steps=options.steps,
        guidance_scale=options.guidance_scale,
        weak_strength=options.weak_strength,
        tile_size=options.tile_size,
        tile_overlap=options.tile_overlap,
        colour_fix=options.colour_fix,
        seed=options.seed,
        progress=progress,
    )
    write_picture(result, target)
    if options.compare:
        row = _side_by_side(photograph.rgb, result)
        write_picture(row, target.with_name(f"{target.stem}-compare.png"))
    progress.clear()
    print(f"{target} ({result.width}x{result.height})")


def _side_by_side(source, result):
    """From left to right: the input with its pixels repeated, bicubic, the result."""
    from PIL import Image

    row = Image.new("RGB", (3 * result.width, result.height))
    row.paste(source.resize(result.size, Image.Resampling.NEAREST), (0, 0))
    row.paste(source.resize(result.size, Image.Resampling.BICUBIC), (result.width, 0))
    row.paste(result.convert("RGB"), (2 * result.width, 0))
    return row


class _Progress:
    """One line on a terminal: which picture, its share, time left of the whole run."""

    def __init__(self, started: float, number: int, count: int, name: str):
        self.started, self.number, self.count, self.name = started, number, count, name
        self(0.0)

    def __call__(self, share: float) -> None:
        if not sys.stderr.isatty():
            return
        done = (self.number + share) / self.count
        spent = time.monotonic() - self.started
        left = f", {_duration(spent / done - spent)} left" if done > 0 else ""
        line = f"[{self.number + 1}/{self.count}] {self.name} {share:.0%}{left}"
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
