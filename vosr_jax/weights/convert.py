"""Any model that can be read, written as our export or in the official layout."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vosr_jax.errors import UserError
from vosr_jax.weights.autoencoders import LIGHT_DECODER
from vosr_jax.weights.licences import licences
from vosr_jax.weights.lightning_dit import entries
from vosr_jax.weights.manifest import describe_files, write_manifest
from vosr_jax.weights.official_args import (
    AUTOENCODERS,
    ENCODER_FOLDER,
    ENCODERS,
    args_of_config,
    unofficial,
)
from vosr_jax.weights.official_args import LIGHT_DECODER as LIGHT_DECODER_FILE
from vosr_jax.weights.package import ARGS_FILE, BUFFERS_FILE, STEM, Package, Part
from vosr_jax.weights.sharded import SHARD_BYTES, write_safetensors
from vosr_jax.weights.tensors import name_officially
from vosr_jax.weights.torch_zip import write_torch_zip

_CHECKPOINTS = "preset/ckpts"
_DIFFUSERS = "diffusion_pytorch_model"
DTYPES = ("float32", "float16", "bfloat16")


def write_export(
    package: Package,
    folder: str | Path,
    *,
    dtype: str | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Write a model as our export: config.json, weights, frozen networks, manifest.json.

    Args:
      package: the model.
      folder: must not exist, or be empty; it appears whole or not at all.
      dtype: of the denoiser's tensors, one of `DTYPES`; None keeps theirs.
      shard_bytes: largest size of a weights' file.

    Returns:
      The folder.

    Raises:
      UserError: the folder cannot be written, or the type cannot hold a weight.
    """
    parameters = _cast(package.parameters, dtype)
    config = package.config.to_dict()
    # Where things lay on this machine says nothing to whoever gets the weights.
    for section, key in (
        *(("data", "sources"), ("train", "init_from")),
        *(("eval", "model"), ("eval", "hr"), ("eval", "lr")),
    ):
        config[section][key] = None
    places = {"autoencoder": ("autoencoder", "path"), "light_decoder": ("autoencoder", "decoder")}
    places["encoder"] = ("encoder", "path")
    for part, (section, key) in places.items():
        config[section][key] = part if getattr(package, part) is not None else None
    with _whole(folder) as draft:
        _write_json(draft / "config.json", config)
        write_safetensors(draft, STEM, parameters, shard_bytes)
        if package.autoencoder is not None:
            _write_part(draft / "autoencoder", package.autoencoder, _DIFFUSERS, shard_bytes)
        if package.light_decoder is not None:
            part = package.light_decoder
            named = {"_class_name": LIGHT_DECODER} | (part.config or {})
            _write_part(
                draft / "light_decoder",
                dataclasses.replace(part, config=named),
                _DIFFUSERS,
                shard_bytes,
            )
        if package.encoder is not None:
            _write_part(draft / "encoder", package.encoder, STEM, shard_bytes)
        if package.args is not None:
            _write_json(draft / ARGS_FILE, package.args)
        if package.buffers:
            buffers = draft / BUFFERS_FILE
            buffers.parent.mkdir(exist_ok=True)
            write_safetensors(buffers.parent, buffers.stem, package.buffers)
        if package.facts is not None:
            _write_json(draft / "provenance.json", package.facts | {"dtype": _dtype(parameters)})
        narrow = {} if dtype else package.narrow
        write_manifest(draft, _facts(package, parameters) | ({"narrow": narrow} if narrow else {}))
    return Path(folder)


def write_official(
    package: Package, folder: str | Path, *, dtype: str | None = None
) -> tuple[Path, tuple[str, ...]]:
    """Write a model in the official layout, for the official commands to be run in the folder.

    Args:
      package: the model.
      folder: must not exist, or be empty; it appears whole or not at all. The checkpoint goes to
        preset/ckpts/NAME, the frozen networks to where the official code looks for them.
      dtype: of the denoiser's tensors, one of `DTYPES`; None keeps theirs.

    Returns:
      (the checkpoint's folder, notes: what the official command needs besides).

    Raises:
      UserError: the official network cannot be this one, or the folder cannot be written.
    """
    reason = unofficial(package.config)
    if reason is not None:
        raise UserError(
            f"{package.name} cannot be written in the official layout, whose network knows "
            f"nothing like it: {reason}"
        )
    table = entries(package.config.model_settings())
    by_path = {e.ours: package.parameters[".".join(map(str, e.ours))] for e in table}
    named = name_officially(by_path, table)
    if dtype is None:
        named = {n: t.astype(package.narrow.get(n, t.dtype), copy=False) for n, t in named.items()}
    tensors = _cast(named, dtype)
    args, notes = _official_args(package)
    checkpoint = PurePosixPath(_CHECKPOINTS, package.name)
    with _whole(folder) as draft:
        home = draft / checkpoint
        _write_json(home / "args.json", args)
        (home / "checkpoints").mkdir()
        # The official reader takes one file and no index.
        total = sum(t.nbytes for t in tensors.values()) + 1
        write_safetensors(home / "checkpoints", "ema_model", tensors | package.buffers, 2 * total)
        notes += _write_official_parts(draft, package, args)
        write_manifest(draft, _facts(package, tensors))
    return Path(folder) / checkpoint, tuple(notes)


def _official_args(package: Package) -> tuple[dict[str, Any], list[str]]:
    """(args.json, notes)."""
    if package.args is None:
        args = args_of_config(package.config)
        command = "inference_vosr_onestep.py" if package.config.model.r_embedding else (
            f"inference_vosr.py --cfg_scale {args['cfg_scale']:g} "
            f"--infer_steps {args['infer_steps']}"
        )
        return args, [f"run it with {command}, which reads neither from args.json"]
    args, notes = dict(package.args), []
    default = AUTOENCODERS[package.config.autoencoder.kind]
    place = PurePosixPath(args.get("ae_path") or default)
    if place.is_absolute() or ".." in place.parts:
        args["ae_path"] = default
        notes.append(f"ae_path was {place}, outside the folder, and is {default} now")
    return args, notes


def _write_official_parts(draft: Path, package: Package, args: dict[str, Any]) -> list[str]:
    """Write the frozen networks; returns what is still missing."""
    kind, notes = package.config.autoencoder.kind, []
    if package.autoencoder is not None:
        place = draft / (args.get("ae_path") or AUTOENCODERS[kind])
        place = place / "vae" if kind == "sd2" else place
        _write_part(place, package.autoencoder, _DIFFUSERS, SHARD_BYTES)
    light = package.light_decoder
    if light is not None:
        file = draft / LIGHT_DECODER_FILE
        file.parent.mkdir(parents=True, exist_ok=True)
        # The official code takes these four as they stand in the file.
        config = {"in_channels": 4, "out_channels": 3, **(light.config or {})}
        write_torch_zip(file, {"config": config, "model_state_dict": light.tensors})
    elif kind == "sd2":
        notes.append(f"the official command also needs {LIGHT_DECODER_FILE} of the release")
    if package.encoder is not None:
        file = draft / ENCODER_FOLDER / ENCODERS[package.config.encoder.kind]
        file.parent.mkdir(parents=True, exist_ok=True)
        write_torch_zip(file, package.encoder.tensors)
        if package.encoder.config is not None:
            _write_json(file.parent / "config.json", package.encoder.config)
    return notes


def _write_part(folder: Path, part: Part, stem: str, shard_bytes: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if part.config is not None:
        _write_json(folder / "config.json", part.config)
    write_safetensors(folder, stem, part.tensors, shard_bytes)


def _cast(tensors: dict[str, np.ndarray], dtype: str | None) -> dict[str, np.ndarray]:
    """Tensors in a type by name; a finite value must stay finite."""
    import ml_dtypes

    if dtype is None:
        return tensors
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    cast = {}
    for name, tensor in tensors.items():
        with np.errstate(over="ignore"):
            cast[name] = tensor.astype(kind)
        if not np.array_equal(np.isfinite(cast[name]), np.isfinite(tensor)):
            raise UserError(f"{name} has values that {dtype} cannot hold; choose another --dtype")
    return cast


def _dtype(tensors: dict[str, np.ndarray]) -> str:
    kinds = sorted({tensor.dtype.name for tensor in tensors.values()})
    return kinds[0] if len(kinds) == 1 else ", ".join(kinds)


def _facts(package: Package, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    from vosr_jax import __version__

    root = package.sources[0].parent
    return {
        "name": package.name,
        "vosr_jax": __version__,
        "parameters": int(sum(array.size for array in package.parameters.values())),
        "dtype": _dtype(tensors),
        "source": {"kind": package.origin, "files": describe_files(root, package.sources)},
        "licences": licences(package.config, package.origin),
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


@contextmanager
def _whole(folder: str | Path) -> Iterator[Path]:
    """A folder to write into that takes its own name once all of it is there."""
    folder = Path(folder)
    draft = folder.with_name(f".{folder.name}.partial")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty; choose another folder")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        yield draft
        if folder.exists():
            folder.rmdir()
        draft.rename(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error}); choose another folder") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
