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

_SHIPPED = Path(__file__).parents[1] / "pretrained"
_NAMES = ("nano",)
_RELEASED = ("0.5b", "0.5b-onestep", "1.4b", "1.4b-onestep")


def load_model(name_or_path: str | Path, precision: str = "float32") -> RestorationModel:
    """Load a shipped model, an export, a workdir or a folder in the official layout.

    Args:
      name_or_path: see `Upscaler.from_pretrained`.
      precision: what its denoiser shall compute in, one of `precision.PRECISIONS`.

    Raises:
      UserError: no such model or precision; the message says what is known.
    """
    check_precision(precision)
    return dataclasses.replace(_load(name_or_path), precision=precision)


def _load(name_or_path: str | Path) -> RestorationModel:
    name, path = str(name_or_path), Path(name_or_path)
    if name in _NAMES:
        return _from_export(_SHIPPED / name, name)
    if name in _RELEASED:
        raise UserError(
            f"model '{name}' is not downloaded by this version; download the release and give "
            "the folder that holds its args.json"
        )
    if not path.exists():
        raise UserError(
            f"model '{name}' is neither a known name ({', '.join(_NAMES)}) nor an existing "
            "folder; give an export, a workdir of train.py or an official folder"
        )
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
      UserError: a frozen network's files are missing or damaged.
    """
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
    )


def _from_export(folder: Path, name: str) -> RestorationModel:
    from vosr_jax.weights.export import load_export

    if not folder.is_dir():
        raise UserError(f"model '{name}' is not in this installation: {folder} is missing")
    config, denoiser = load_export(folder)
    return from_config(validate(config), denoiser, name)


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
