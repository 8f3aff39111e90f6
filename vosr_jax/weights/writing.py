"""Shared code of both layouts' writers: parts, types, facts about a model."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from vosr_jax.errors import UserError
from vosr_jax.files import write_json
from vosr_jax.parameters.sharded import write_safetensors
from vosr_jax.version import __version__
from vosr_jax.weights.licences import licences
from vosr_jax.weights.manifest import describe_files
from vosr_jax.weights.package import Package, Part

DIFFUSERS_STEM = "diffusion_pytorch_model"
DTYPES = ("float32", "float16", "bfloat16")


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
