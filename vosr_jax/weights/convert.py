"""Writing any readable model as our export.

The writer of the official layout shares its code for parts, types and the manifest's facts.
"""

import dataclasses
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from vosr_jax.errors import UserError
from vosr_jax.files import local_or_epath, whole_folder, write_json
from vosr_jax.models.autoencoders.weights import LIGHT_DECODER
from vosr_jax.parameters.safetensors_files import SHARD_BYTES, write_safetensors
from vosr_jax.version import __version__
from vosr_jax.weights.licences import licences
from vosr_jax.weights.manifest import describe_files, write_manifest
from vosr_jax.weights.package import ARGS_FILE, BUFFERS_FILE, STEM, Package, Part

DIFFUSERS_STEM = "diffusion_pytorch_model"
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
      folder: must not exist, or be empty; it appears complete or not at all.
      dtype: type of the denoiser's tensors, one of `DTYPES`; None keeps their types.
      shard_bytes: largest size of a weights file.

    Returns:
      The folder.

    Raises:
      UserError: the folder cannot be written, or the type cannot hold a weight.
    """
    parameters = cast_tensors(package.parameters, dtype)
    config = package.config.to_dict()
    # Paths of this machine mean nothing to the recipient of the weights.
    for section, key in (
        *(("data", "sources"), ("train", "init_from"), ("train", "executable")),
        *(("eval", "model"), ("eval", "hr"), ("eval", "lr")),
    ):
        config[section][key] = None
    config["teacher"] = None
    places = {"autoencoder": ("autoencoder", "path"), "light_decoder": ("autoencoder", "decoder")}
    places["encoder"] = ("encoder", "path")
    for part, (section, key) in places.items():
        config[section][key] = part if getattr(package, part) is not None else None
    with whole_folder(folder) as draft:
        write_json(draft / "config.json", config)
        write_safetensors(draft, STEM, parameters, shard_bytes)
        if package.autoencoder is not None:
            write_part(draft / "autoencoder", package.autoencoder, DIFFUSERS_STEM, shard_bytes)
        if package.light_decoder is not None:
            light = package.light_decoder
            named = {"_class_name": LIGHT_DECODER} | (light.config or {})
            light = dataclasses.replace(light, config=named)
            write_part(draft / "light_decoder", light, DIFFUSERS_STEM, shard_bytes)
        if package.encoder is not None:
            write_part(draft / "encoder", package.encoder, STEM, shard_bytes)
        if package.args is not None:
            write_json(draft / ARGS_FILE, package.args)
        if package.buffers:
            buffers = draft / BUFFERS_FILE
            buffers.parent.mkdir(exist_ok=True)
            write_safetensors(buffers.parent, buffers.stem, package.buffers)
        if package.facts is not None:
            write_json(draft / "provenance.json", package.facts | {"dtype": dtype_name(parameters)})
        narrow = {} if dtype else package.narrow
        write_manifest(
            draft, facts_of(package, parameters) | ({"narrow": narrow} if narrow else {})
        )
    return local_or_epath(folder)


def write_part(folder: Path, part: Part, stem: str, shard_bytes: int) -> None:
    """Write a frozen network's config.json and weights into a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    if part.config is not None:
        write_json(folder / "config.json", part.config)
    write_safetensors(folder, stem, part.tensors, shard_bytes)


def cast_tensors(tensors: dict[str, np.ndarray], dtype: str | None) -> dict[str, np.ndarray]:
    """Cast tensors to a named type; a finite value must stay finite."""
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


def dtype_name(tensors: dict[str, np.ndarray]) -> str:
    """The common type of tensors, or a list of their types."""
    kinds = sorted({tensor.dtype.name for tensor in tensors.values()})
    return kinds[0] if len(kinds) == 1 else ", ".join(kinds)


def facts_of(package: Package, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """Content of manifest.json except its files."""
    root = package.sources[0].parent
    return {
        "name": package.name,
        "vosr_jax": __version__,
        "parameters": int(sum(array.size for array in package.parameters.values())),
        "dtype": dtype_name(tensors),
        "source": {"kind": package.origin, "files": describe_files(root, package.sources)},
        "licences": licences(package.config, package.origin),
    }
