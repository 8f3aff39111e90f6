"""`vosr convert`: write any model as an export, or in the official layout."""

import argparse
import re

from vosr_jax.errors import UserError
from vosr_jax.files import folder_size

_SIZES = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def add_parser(commands) -> None:
    """Describe the command to argparse's subparsers."""
    convert = commands.add_parser(
        "convert",
        help="write a model as an export, or in the official layout",
        description="Write a release folder, an export or a training run's newest weights as an "
        "export (config.json, safetensors, the frozen networks, manifest.json), or in the layout "
        "that the official PyTorch commands read. Tensors keep their bits.",
    )
    add = convert.add_argument
    add("model", metavar="SOURCE", help="release folder, export, workdir of train.py, or name")
    add("-o", "--out", required=True, metavar="OUT", help="a new or empty folder")
    add("--to", choices=("export", "official"), default="export", help="default: export")
    add(
        "--dtype",
        choices=("asis", "float32", "float16", "bfloat16"),
        help="of the denoiser; default: as it is stored, but float16 for a run's export (float32 "
        "where adapters are merged)",
    )
    add("--shard-size", default="4GB", metavar="SIZE", help="largest file of an export, e.g. 2GB")
    alone = "the adapter alone, of a run with model.lora_rank; without it, merged with its base"
    add("--adapter", action="store_true", help=alone)
    convert.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the folder."""
    shard_bytes = _bytes(options.shard_size)
    if options.adapter:
        return _write_adapter(options)
    # These load JAX.
    from vosr_jax.weights import official_writer, package, resolve
    from vosr_jax.weights.convert import write_export

    model = package.read_package(resolve.resolve(options.model))
    dtype = options.dtype
    if dtype is None and model.origin == "workdir" and options.to == "export":
        # Rounding the merged weights would lose a good part of an adapter's change.
        dtype = "float16" if model.adapter is None else "float32"
    if dtype == "asis":
        dtype = None
    notes: tuple[str, ...] = ()
    if options.to == "export":
        folder = write_export(model, options.out, dtype=dtype, shard_bytes=shard_bytes)
    else:
        folder, notes = official_writer.write_official(model, options.out, dtype=dtype)
    size = folder_size(options.out) / 1e6
    print(f"wrote {folder} ({size:.1f} MB in {options.out})")
    for note in notes:
        print(f"note: {note}")
    return 0


def _write_adapter(options: argparse.Namespace) -> int:
    """Write a run's adapter without its base."""
    if options.to != "export" or options.dtype not in (None, "asis", "float32"):
        raise UserError(
            "--adapter writes our own small format in float32; leave --to and --dtype out"
        )
    # These load JAX.
    from vosr_jax.weights import adapter, resolve, saved_run

    found = resolve.resolve(options.model)
    if found.kind != "workdir":
        raise UserError(
            f"--adapter takes the workdir of a run with model.lora_rank; {options.model} is none"
        )
    trained = adapter.adapter_of_run(saved_run.load_run(found.path), str(options.model))
    folder = adapter.write_adapter(trained, options.out)
    print(f"wrote {folder} ({folder_size(folder) / 1e6:.1f} MB), an adapter of", end=" ")
    print(f"{trained.base['name']}: vosr upscale photo.jpg -o out/ -m BASE --adapter {folder}")
    return 0


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(|KB|MB|GB)", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * _SIZES[match[2].upper()]) if match else 0
    if size < 1:
        raise UserError(f"--shard-size {text} is no size; write e.g. 500MB or 4GB")
    return size
