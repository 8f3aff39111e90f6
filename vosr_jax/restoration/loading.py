"""From a model's name or path to a model that restores."""

import dataclasses
from pathlib import Path
from typing import Any

from vosr_jax.config import Config, validate
from vosr_jax.diffusion.sampling import SamplerSettings
from vosr_jax.errors import UserError
from vosr_jax.restoration.model import RestorationModel
from vosr_jax.restoration.precision import check_precision
from vosr_jax.weights.of_config import config_autoencoder, config_encoder

_SHIPPED_FOLDER = Path(__file__).parents[1] / "pretrained"
SHIPPED = ("nano", "nano-onestep")


def shipped_folder(name: str) -> Path | None:
    """Where a shipped model lies; None for any other name."""
    return _SHIPPED_FOLDER / name if name in SHIPPED else None


def locate_model(name_or_path: str | Path) -> Path:
    """Where a model lies: a shipped one, an existing path, or one fetched from the hub.

    Args:
      name_or_path: as `load_model` takes it.

    Raises:
      UserError: no such model; the message says what is known.
    """
    from vosr_jax.weights import hub

    name, path = str(name_or_path), Path(name_or_path)
    folder = shipped_folder(name)
    if folder is not None:
        if not folder.is_dir():
            raise UserError(f"model '{name}' is not in this installation: {folder} is missing")
        return folder
    if path.exists():
        return path
    found = hub.parse(name)
    if found is not None:
        return hub.fetch(found)
    raise UserError(
        f"model '{name}' is neither a known name ({', '.join((*SHIPPED, *hub.RELEASED))}) nor an "
        "existing folder nor owner/repo:subfolder@revision of the hub; give an export, a workdir "
        "of train.py or an official folder"
    )


def load_model(name_or_path: str | Path, precision: str = "float32") -> RestorationModel:
    """Load a shipped model, an export, a workdir, an official folder, or one from the hub.

    Args:
      name_or_path: a path, "nano", "nano-onestep", a released model ("0.5b", "0.5b-onestep",
        "1.4b", "1.4b-onestep") or owner/repo:subfolder@revision.
      precision: what its denoiser shall compute in, one of `precision.PRECISIONS`.

    Raises:
      UserError: no such model or precision; the message says what is known.
    """
    check_precision(precision)
    model = _load(locate_model(name_or_path))
    return dataclasses.replace(model, precision=precision)


def _load(path: Path) -> RestorationModel:
    from vosr_jax.weights.export import is_export

    if is_export(path):
        return _from_export(path, path.name)
    if (path / "config.json").is_file() and (path / "checkpoints").is_dir():
        return _from_workdir(path)
    from vosr_jax.restoration.official import load_official
    from vosr_jax.weights.release import find_args

    if find_args(path) is not None:
        return load_official(path)
    raise UserError(
        f"{path} is no model: it has neither config.json with model.safetensors or checkpoints/ "
        "nor, in it or up to five folders above, the official args.json"
    )


def from_config(config: Config, denoiser: Any, name: str) -> RestorationModel:
    """A denoiser trained by this package, with the frozen networks that its config names.

    Args:
      config: of the run that trained it.
      denoiser: the network.
      name: what messages call it.

    Raises:
      UserError: a frozen network's files are missing or damaged, or it is an arm of an ablation
        that needs more than the picture.
    """
    if config.encoder.kind != "none" and config.encoder.tokens_of != "lq":
        raise UserError(
            f"{name} was trained with encoder.tokens_of={config.encoder.tokens_of}, an "
            "ablation that can't restore a picture alone; judge it with `vosr sweep gather`"
        )
    sampler = SamplerSettings.from_guidance(
        config.guidance,
        steps=config.sampling.steps,
        schedule=config.sampling.schedule,
        r_input=config.model.r_embedding,
    )
    return RestorationModel(
        name=name,
        denoiser=denoiser,
        autoencoder=config_autoencoder(config),
        encoder=config_encoder(config),
        token_size=config.encoder.size,
        token_block=config.encoder.block,
        sampler=sampler,
        parameterization=config.parameterization(),
        colour_fix=config.sampling.colour_fix,
        sample_posterior=config.autoencoder.sample_posterior,
        truncate=bool(config.sampling.truncate),
    )


def _from_export(folder: Path, name: str) -> RestorationModel:
    from vosr_jax.weights.export import load_export, local_config
    from vosr_jax.weights.json_file import read_json_object
    from vosr_jax.weights.official_args import config_of_args
    from vosr_jax.weights.package import ARGS_FILE

    _, denoiser = load_export(folder)
    config = validate(local_config(folder))
    model = from_config(config, denoiser, name)
    args_file = folder / ARGS_FILE
    if not args_file.is_file():
        return model
    args, has_r = read_json_object(args_file), config.model.r_embedding
    notes = config_of_args(args, args_file, r_embedding=has_r)[1]
    return dataclasses.replace(model, notes=notes)


def _from_workdir(workdir: Path) -> RestorationModel:
    from vosr_jax.weights.export import build_denoiser

    try:
        from vosr_jax.training.checkpoints import load_ema

        values, step, parameters = load_ema(workdir)
    except ImportError as error:
        raise UserError(
            f"{workdir} is a workdir, whose checkpoints need the training packages: "
            f"pip install 'vosr_jax[train]', or write an export with `vosr convert` ({error})"
        ) from error
    config, source = validate(values), f"checkpoint {step} of {workdir}"
    denoiser = build_denoiser(config.model_settings(), parameters, source)
    return from_config(config, denoiser, f"{workdir.resolve().name}, step {step}")
