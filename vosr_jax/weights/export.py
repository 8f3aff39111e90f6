"""Our own format of a trained denoiser: a folder with `config.json` and `model.safetensors`.

Tensor names are the parameters' dotted paths; config.json is the training config, from which
the network's settings follow; provenance.json says how the weights came about.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from vosr_jax.errors import UserError
from vosr_jax.models.lightning_dit import LightningDiT, LightningDiTSettings
from vosr_jax.models.parameters import Blueprint


def save_export(
    folder: str | Path,
    config: dict[str, Any],
    parameters: dict[str, np.ndarray],
    dtype: str,
    provenance: dict[str, Any] | None = None,
) -> Path:
    """Write a denoiser's weights and config, each whole or not at all.

    Args:
      folder: made if missing.
      config: plain training config.
      parameters: {dotted path: array}.
      dtype: of the stored tensors, e.g. "float16".
      provenance: command, commit, steps and whatever else should be known of the weights.

    Returns:
      The folder.
    """
    from safetensors.numpy import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: np.ascontiguousarray(v, dtype=dtype) for k, v in parameters.items()}
    temporary = folder / "model.safetensors.tmp"
    save_file(tensors, temporary)
    temporary.chmod(0o644)  # safetensors writes files that only their owner can read
    temporary.replace(folder / "model.safetensors")
    for name, content in (("config.json", config), ("provenance.json", provenance)):
        if content is not None:
            temporary = folder / f"{name}.tmp"
            temporary.write_text(json.dumps(content, indent=1) + "\n")
            temporary.replace(folder / name)
    return folder


def export_workdir(workdir: str | Path, folder: str | Path, dtype: str = "float16") -> Path:
    """Write the newest averaged weights of a training run as an export.

    Args:
      workdir: of train.py.
      folder: of the export.
      dtype: of the stored tensors.

    Returns:
      The folder.

    Raises:
      UserError: the workdir has no checkpoint, or the folder can't be written.
    """
    from vosr_jax import __version__
    from vosr_jax.training.checkpoints import load_ema, teacher_of

    config, step, ema = load_ema(workdir)
    # Where the run found its files says nothing to whoever gets the weights.
    for section, key in (
        *(("data", "sources"), ("train", "init_from")),
        *(("eval", "model"), ("eval", "hr"), ("eval", "lr")),
    ):
        config[section][key] = None
    config["teacher"] = None
    provenance = {
        "vosr_jax": __version__,
        "step": step,
        "samples_seen": step * config["train"]["batch_size"],
        "parameters": int(sum(array.size for array in ema.values())),
        "dtype": dtype,
    }
    if (teacher := teacher_of(workdir)) is not None:
        provenance["teacher_sha256"] = teacher["sha256"]
    try:
        return save_export(folder, config, ema, dtype, provenance)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error}); choose another folder") from error


def is_export(folder: str | Path) -> bool:
    """Whether a folder holds an export."""
    return all((Path(folder) / name).is_file() for name in ("config.json", "model.safetensors"))


def build_denoiser(
    settings: LightningDiTSettings, parameters: dict[str, np.ndarray], source: str, **options
) -> LightningDiT:
    """A denoiser with these parameters, as float32.

    Args:
      settings: of the network.
      parameters: {dotted path: array}.
      source: where they come from, for messages.
      **options: `dtype` and `remat` of `LightningDiT`.

    Raises:
      UserError: a parameter is missing, unexpected or misshapen; it is named.
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
    return blueprint.merge({k: np.asarray(v, np.float32) for k, v in parameters.items()})


def load_export(folder: str | Path, **options) -> tuple[dict[str, Any], LightningDiT]:
    """Read an export.

    Args:
      folder: of `save_export`.
      **options: `dtype` and `remat` of `LightningDiT`.

    Returns:
      (config as stored, the network in float32).

    Raises:
      UserError: a file is missing or damaged, or the tensors are not the config's network's.
    """
    from vosr_jax.config import validate
    from vosr_jax.weights.json_file import read_json_object
    from vosr_jax.weights.tensors import read_tensors

    folder = Path(folder)
    config = read_json_object(folder / "config.json")
    source = folder / "model.safetensors"
    settings = validate(config).model_settings()
    return config, build_denoiser(settings, read_tensors(source), str(source), **options)
