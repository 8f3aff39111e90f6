"""`vosr export-program`: export a model for a process that has jax but not this package."""

import argparse
from pathlib import Path

from vosr_jax.errors import UserError
from vosr_jax.files import folder_size
from vosr_jax.quiet import open_devices


def add_parser(commands) -> None:
    """Describe the command to argparse's subparsers."""
    export = commands.add_parser(
        "export-program",
        help="write a model as programs that need no package but jax",
        description="StableHLO of encoder, denoiser and decoder for one tile's shape, for CPU, "
        "CUDA and TPU, with the weights beside them and a README.md that says how to call them.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = export.add_argument
    add("-m", "--model", default="nano-onestep", help="name, export, workdir or official folder")
    add("-o", "--out", type=Path, required=True, help="a new or empty folder")
    add("--tile-size", type=int, default=512, help="side of a call's picture, in result pixels")
    add("--batch", type=int, default=1, help="pictures in a call")
    export.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the folder."""
    if options.batch < 1:
        raise UserError(f"--batch must be at least 1, not {options.batch}")
    open_devices()
    # These load JAX.
    from vosr_jax.restoration.loading import load_model
    from vosr_jax.restoration.program_export import export_programs

    folder = export_programs(
        load_model(options.model), options.out, options.tile_size, options.batch
    )
    print(f"wrote {folder} ({folder_size(folder) / 1e6:.1f} MB); its README.md says how to call it")
    return 0
