"""`vosr convert`: a training run's weights as an export."""

import argparse
from pathlib import Path


def add_parser(commands) -> None:
    """Describe the command to argparse's subparsers."""
    convert = commands.add_parser("convert", help="write a training run's weights as an export")
    convert.add_argument("model", type=Path, metavar="WORKDIR", help="of train.py")
    convert.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER")
    convert.add_argument("--dtype", choices=("float16", "float32"), default="float16")
    convert.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the export."""
    from vosr_jax.weights.export import export_workdir

    folder = export_workdir(options.model, options.out, options.dtype)
    size = (folder / "model.safetensors").stat().st_size / 1e6
    print(f"wrote {folder} ({size:.1f} MB)")
    return 0
