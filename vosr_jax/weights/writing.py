"""What the writers of both layouts share: whole folders, types, facts about a model."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vosr_jax.errors import UserError
from vosr_jax.weights.licences import licences
from vosr_jax.weights.manifest import describe_files
from vosr_jax.weights.package import Package, Part
from vosr_jax.weights.sharded import write_safetensors

DIFFUSERS_STEM = "diffusion_pytorch_model"
DTYPES = ("float32", "float16", "bfloat16")


def write_part(folder: Path, part: Part, stem: str, shard_bytes: int) -> None:
    """Write a frozen network's config.json and weights into a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    if part.config is not None:
        write_json(folder / "config.json", part.config)
    write_safetensors(folder, stem, part.tensors, shard_bytes)


def cast_tensors(tensors: dict[str, np.ndarray], dtype: str | None) -> dict[str, np.ndarray]:
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


def dtype_name(tensors: dict[str, np.ndarray]) -> str:
    """The type of tensors, or all of their types."""
    kinds = sorted({tensor.dtype.name for tensor in tensors.values()})
    return kinds[0] if len(kinds) == 1 else ", ".join(kinds)


def facts_of(package: Package, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """What manifest.json says besides its files."""
    from vosr_jax import __version__

    root = package.sources[0].parent
    return {
        "name": package.name,
        "vosr_jax": __version__,
        "parameters": int(sum(array.size for array in package.parameters.values())),
        "dtype": dtype_name(tensors),
        "source": {"kind": package.origin, "files": describe_files(root, package.sources)},
        "licences": licences(package.config, package.origin),
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a json file into a folder that is made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


@contextmanager
def whole_folder(folder: str | Path) -> Iterator[Path]:
    """A folder to write into that takes its own name once all of it is there.

    Raises:
      UserError: the folder exists with something in it, or cannot be written.
    """
    from safetensors import SafetensorError

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
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder} cannot be written ({error}); choose another folder") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
