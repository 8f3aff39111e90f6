"""Load a restoration model by name or path."""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from vosr_jax.config import Config
from vosr_jax.diffusion.sampler import SamplerSettings
from vosr_jax.errors import UserError
from vosr_jax.restoration.model import RestorationModel
from vosr_jax.restoration.settings import settle
from vosr_jax.weights.adapter import read_adapter
from vosr_jax.weights.official_reader import read_args, with_parts
from vosr_jax.weights.opening import adapted, config_autoencoder, config_encoder, open_denoiser
from vosr_jax.weights.resolve import Found, resolve


def load_model(
    name_or_path: Found | str | Path,
    precision: str = "float32",
    autoencoder_precision: str = "float32",
    adapter: str | Path | None = None,
) -> RestorationModel:
    """Load a model of any kind with its frozen networks.

    In a bucket a run's workdir is read in place; any other model is copied to the cache.

    Args:
      name_or_path: from `weights.resolve`, or what that takes: a path, "nano", a released model,
        owner/repo:subfolder@revision of the hub.
      precision: of the denoiser, one of `settings.PRECISIONS`.
      autoencoder_precision: of the autoencoder's products, one of
        `settings.AUTOENCODER_PRECISIONS`.
      adapter: folder of an adapter to add to the model, see `weights.adapter`.

    Raises:
      UserError: no such model or precision (the message lists the known ones), or the adapter
        belongs to another model.
    """
    precision, autoencoder_precision = settle(
        precision, autoencoder_precision, jax.default_backend()
    )
    found = name_or_path if isinstance(name_or_path, Found) else resolve(name_or_path)
    opened = open_denoiser(found)
    if adapter is not None:
        opened = adapted(opened, read_adapter(adapter))
    config = opened.config
    if found.kind == "release":
        config = with_parts(config, *read_args(found.path))
    model = from_config(config, opened.network.network(), opened.name)
    return dataclasses.replace(
        model,
        precision=precision,
        autoencoder_precision=autoencoder_precision,
        notes=opened.notes,
    )


def from_config(config: Config, denoiser: Any, name: str) -> RestorationModel:
    """Combine a denoiser of this package with the frozen networks that its config names.

    Args:
      config: of the run that trained it.
      denoiser: the network.
      name: the model's name in messages.

    Raises:
      UserError: a frozen network's files are missing or damaged, or the denoiser comes from an
        ablation that needs more inputs than the image.
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
    encoder = config_encoder(config)
    return RestorationModel(
        name=name,
        denoiser=denoiser,
        autoencoder=config_autoencoder(config).network(),
        encoder=None if encoder is None else encoder.network(),
        token_size=config.encoder.size,
        token_block=config.encoder.block,
        sampler=sampler,
        parameterization=config.parameterization(),
        colour_fix=config.sampling.colour_fix,
        sample_posterior=config.sampling.posterior == "sample",
        guided=config.guidance.kind != "none" and not config.model.r_embedding,
        truncate=bool(config.sampling.truncate),
    )
