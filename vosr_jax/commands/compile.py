"""`vosr compile`: compile a model's programs ahead, so its first image starts at once."""

import argparse
import time
from typing import TYPE_CHECKING

from vosr_jax.restoration.precisions import AUTOENCODER_PRECISIONS, PRECISIONS

if TYPE_CHECKING:
    from PIL.Image import Image


def add_parser(commands) -> None:
    """Describe the command to argparse's subparsers."""
    compile_ = commands.add_parser(
        "compile",
        help="compile a model's programs ahead",
        description="Compile what `vosr upscale` runs with the same model and flags, and keep it "
        "on disk. Pictures of all sizes share these programs.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = compile_.add_argument
    add("-m", "--model", default="nano-onestep", help="name, export, workdir or official folder")
    add("--steps", type=int, help="sampling steps; the model's own if not given")
    add("--guidance-scale", type=float, help="the model's own if not given")
    add("--posterior", choices=("mode", "sample"), help="the model's own if not given")
    add("--precision", choices=PRECISIONS, default="float32", help="denoiser's")
    add("--autoencoder-precision", choices=AUTOENCODER_PRECISIONS, default="float32", help=" ")
    add("--tile-size", type=int, default=512, help="denoiser's tiles in result pixels")
    add("--device", type=int, default=0, metavar="NUMBER", help="which of the devices")
    compile_.set_defaults(run=run, starts=True)


def run(options: argparse.Namespace) -> int:
    """Restore a plain image for every program."""
    from vosr_jax.commands.interrupts import running
    from vosr_jax.commands.quiet import open_devices
    from vosr_jax.errors import UserError

    open_devices()
    import jax

    from vosr_jax.restoration.memory import tile_batch
    from vosr_jax.restoration.upscaler import Upscaler

    devices = jax.local_devices()
    if not 0 <= options.device < len(devices):
        raise UserError(f"--device {options.device} is none of 0 to {len(devices) - 1}")
    if options.tile_size <= 0:
        raise UserError(f"--tile-size {options.tile_size} has no program for all sizes; choose 512")
    device = devices[options.device]
    upscaler = Upscaler.from_pretrained(
        options.model, options.precision, options.autoencoder_precision
    )
    if options.device:
        upscaler = upscaler.on(device)
    given = {
        "steps": options.steps,
        "guidance_scale": options.guidance_scale,
        "posterior": options.posterior,
        "tile_size": options.tile_size,
    }
    running()
    began = time.monotonic()
    for picture in pictures(options.tile_size, tile_batch()):
        # Pass a progress callback as `vosr upscale` does.
        upscaler(picture, scale=1, progress=lambda share: None, **given)
    seconds = time.monotonic() - began
    folder = jax.config.values["jax_compilation_cache_dir"]
    print(f"{upscaler.model.name} is compiled for {device} ({seconds:.1f} s); kept in {folder}")
    return 0


def pictures(tile_size: int, together: int = 1) -> "list[Image]":
    """Make grey images that use every program.

    Args:
      tile_size: pixels; half a tile, a partial tile and full tiles have programs of their own.
      together: tiles in one call at most; each power of two below it has a program, too.
    """
    from PIL import Image

    sides = tile_size // 2, tile_size * 3 // 4, tile_size + tile_size // 8
    sizes = [(side, side) for side in sides]
    count = 2
    while count <= together:
        # Tiles overlap by an eighth, so this strip has just so many.
        sizes.append((tile_size + (count - 1) * (tile_size - tile_size // 8), tile_size))
        count *= 2
    return [Image.new("RGB", size, (128, 128, 128)) for size in sizes]
