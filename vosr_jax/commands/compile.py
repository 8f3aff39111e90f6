"""`vosr compile`: compile a model's programs ahead, so its first image starts at once."""

import argparse
import time

from vosr_jax.commands.interrupts import running
from vosr_jax.compilation_cache import folder_in_use
from vosr_jax.errors import UserError
from vosr_jax.quiet import open_devices
from vosr_jax.restoration.settings import AUTOENCODER_PRECISIONS, PRECISIONS


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
    devices = open_devices()
    # These load JAX.
    from vosr_jax.restoration.restore import images_for_programs
    from vosr_jax.restoration.upscaler import Upscaler

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
    for image in images_for_programs(options.tile_size):
        # Pass a progress callback as `vosr upscale` does.
        upscaler(image, scale=1, progress=lambda share: None, **given)
    seconds = time.monotonic() - began
    folder = folder_in_use()
    print(f"{upscaler.model.name} is compiled for {device} ({seconds:.1f} s); kept in {folder}")
    return 0
