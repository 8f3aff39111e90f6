"""`vosr info`: describe a model."""

import argparse
import re

from vosr_jax.errors import UserError
from vosr_jax.quiet import open_devices

_LARGEST_SIDE = 1 << 17


def add_parser(commands) -> None:
    """Describe the command to argparse's subparsers."""
    info = commands.add_parser(
        "info",
        help="show what a model is",
        description="Parts, sizes, kind, steps, licences and notes of a model.",
    )
    add = info.add_argument
    add("model", nargs="?", default="nano-onestep", metavar="MODEL", help="name, folder or hub id")
    add("--verify", action="store_true", help="check every file against manifest.json's sha256")
    add("--size", metavar="WxH", help="also the memory for a result of this size, e.g. 1024x768")
    add("--tile-size", type=int, default=512, help="denoiser's tiles for --size, 0: none")
    info.set_defaults(run=run, starts=True)


def run(options: argparse.Namespace) -> int:
    """Print the description."""
    size = None if options.size is None else _size(options.size)
    if options.tile_size < 0:
        raise UserError(f"--tile-size {options.tile_size} is negative; 0 means no tiles")
    open_devices()
    # Loads JAX.
    from vosr_jax.restoration.summary import summarize

    for text in summarize(
        options.model, verified=options.verify, size=size, tile_size=options.tile_size
    ):
        print(text)
    return 0


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None or not all(0 < int(side) <= _LARGEST_SIDE for side in match.groups()):
        raise UserError(f"--size {text} is no picture's size; write e.g. 1024x768")
    return int(match[1]), int(match[2])
