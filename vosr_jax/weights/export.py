"""Our own model format: a folder with `config.json` and `model.safetensors` or its shards.

Tensor names are the parameters' dotted paths. config.json is the training config, from which the
network's settings follow. provenance.json says how the weights were made. config.json names
frozen networks inside the folder relative to it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from vosr_jax.config import Config, validate
from vosr_jax.errors import UserError
from vosr_jax.files import read_json_object, write_json
from vosr_jax.models.lightning_dit.network import LightningDiT, LightningDiTSettings
from vosr_jax.parameters.blueprint import Blueprint
from vosr_jax.parameters.lazy import HostArray, HostNetwork
from vosr_jax.parameters.safetensors_files import find_safetensors, write_safetensors
from vosr_jax.parameters.tensors import open_tensors

# The official args.json, kept if the export was converted from a release.
ARGS_FILE = "official/args.json"


def save_export(
    folder: str | Path,
    config: dict[str, Any],
    parameters: dict[str, np.ndarray],
    dtype: str,
    provenance: dict[str, Any] | None = None,
) -> Path:
    """Write a denoiser's weights and config, each file complete or not at all.

    Args:
      folder: created if missing.
      config: plain training config.
      parameters: {dotted path: array}.
      dtype: type of the stored tensors, e.g. "float16".
      provenance: command, commit, steps and other facts about the weights.

    Returns:
      The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder, "model", {k: v.astype(dtype) for k, v in parameters.items()})
    for name, content in (("config.json", config), ("provenance.json", provenance)):
        if content is not None:
            write_json(folder / name, content)
    return folder


def is_export(folder: str | Path) -> bool:
    """Whether a folder holds an export."""
    folder = Path(folder) if isinstance(folder, str) else folder
    weights = find_safetensors(folder, "model")
    return (folder / "config.json").is_file() and weights is not None


def local_config(folder: str | Path) -> dict[str, Any]:
    """Read an export's config and point it at the frozen networks inside its folder.

    Raises:
      UserError: config.json is missing or damaged.
    """
    folder = Path(folder)
    config = read_json_object(folder / "config.json")
    for section, key in (("autoencoder", "path"), ("autoencoder", "decoder"), ("encoder", "path")):
        part = config.get(section)
        if isinstance(part, dict) and isinstance(part.get(key), str):
            place = folder / part[key]
            if place.exists():
                part[key] = str(place)
    return config


def open_parameters(
    settings: LightningDiTSettings, parameters: Mapping[str, Any], source: str, **options
) -> HostNetwork[LightningDiT]:
    """Build a float32 denoiser with these parameters, without reading or converting one yet.

    Args:
      settings: the network's settings.
      parameters: {dotted path: array}.
      source: where the parameters come from, for messages.
      **options: `dtype` and `remat` of `LightningDiT`.

    Raises:
      UserError: a parameter (it is named) is missing, unexpected or of the wrong shape.
    """
    blueprint = Blueprint(lambda: LightningDiT(settings, rngs=nnx.Rngs(0), **options))
    missing = sorted(blueprint.shapes.keys() - parameters.keys())
    unexpected = sorted(parameters.keys() - blueprint.shapes.keys())
    if missing or unexpected:
        problem = f"lacks {missing[0]}" if missing else f"has the unexpected {unexpected[0]}"
        raise UserError(f"{source} {problem}; its config.json describes another network")
    for name, wanted in blueprint.shapes.items():
        if parameters[name].shape != wanted.shape:
            raise UserError(
                f"{source}: {name} is {parameters[name].shape} and should be {wanted.shape}"
            )
    arrays = {k: HostArray.of(parameters[k], np.float32) for k in blueprint.shapes}
    return HostNetwork(blueprint, arrays)


def build_denoiser(
    settings: LightningDiTSettings, parameters: Mapping[str, Any], source: str, **options
) -> LightningDiT:
    """Build the network of `open_parameters` with its values on the default device."""
    return open_parameters(settings, parameters, source, **options).network()


def open_export(folder: str | Path, config: Config, **options) -> HostNetwork[LightningDiT]:
    """Open an export's denoiser, its values still in the file.

    Args:
      folder: a folder written by `save_export`.
      config: the export's config.
      **options: `dtype` and `remat` of `LightningDiT`.

    Raises:
      UserError: a file is missing or damaged, or the tensors do not fit the config's network.
    """
    folder = Path(folder)
    source = find_safetensors(folder, "model") or folder / "model.safetensors"
    return open_parameters(config.model_settings(), open_tensors(source), str(source), **options)


def load_export(folder: str | Path, **options) -> tuple[dict[str, Any], LightningDiT]:
    """Read an export.

    Args:
      folder: a folder written by `save_export`.
      **options: `dtype` and `remat` of `LightningDiT`.

    Returns:
      (config as stored, the network in float32).

    Raises:
      UserError: a file is missing or damaged, or the tensors do not fit the config's network.
    """
    config = read_json_object(Path(folder) / "config.json")
    return config, open_export(folder, validate(config), **options).network()
