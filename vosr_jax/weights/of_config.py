"""Opening the frozen networks that a config names."""

from typing import Any

from vosr_jax.config import Config
from vosr_jax.errors import UserError
from vosr_jax.models.autoencoders.space_to_depth import SpaceToDepth, SpaceToDepthSettings
from vosr_jax.models.autoencoders.weights import open_autoencoder
from vosr_jax.models.dinov2.network import DINOv2
from vosr_jax.models.dinov2.weights import open_encoder
from vosr_jax.models.vgg import VGG16
from vosr_jax.parameters.lazy import HostNetwork
from vosr_jax.weights import vgg


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
        return HostNetwork.of(vgg.load(own.block, pretrained=own.weights == "trained"))
    encoder, settings = open_encoder(str(own.path), block=own.block)
    expected = config.model_settings().token_width
    if settings.width != expected:
        raise UserError(
            f"{own.path} gives tokens of width {settings.width}, but encoder.kind={own.kind} "
            f"and encoder.token_width ask for {expected}"
        )
    return encoder
