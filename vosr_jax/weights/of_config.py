"""The frozen nets that a config names."""

from typing import TYPE_CHECKING, Any

from vosr_jax.errors import UserError
from vosr_jax.models.autoencoders.space_to_depth import SpaceToDepth, SpaceToDepthSettings
from vosr_jax.weights import load_autoencoder, load_encoder, vgg

if TYPE_CHECKING:
    from vosr_jax.config import Config
    from vosr_jax.models.dinov2 import DINOv2
    from vosr_jax.models.vgg import VGG16


def config_autoencoder(config: "Config") -> Any:
    """The autoencoder of a config, float32.

    Raises:
      UserError: its file is missing or damaged, or does not fit the config.
    """
    own = config.autoencoder
    if own.kind == "space_to_depth":
        return SpaceToDepth(SpaceToDepthSettings(own.downscale, own.scaling_factor))
    autoencoder, _ = load_autoencoder(str(own.path), decoder=own.decoder)
    if autoencoder.latent_channels != config.latent_channels:
        raise UserError(
            f"{own.path} has {autoencoder.latent_channels} latent channels, but "
            f"autoencoder.kind={own.kind} has {config.latent_channels}"
        )
    return autoencoder


def config_encoder(config: "Config") -> "DINOv2 | VGG16 | None":
    """The visual encoder of a config, float32, with the needed blocks; None where it has none.

    Raises:
      UserError: its file is missing or damaged, or does not fit the config.
    """
    own = config.encoder
    if own.kind == "none":
        return None
    if own.kind == "vgg16":
        return vgg.load(own.block, pretrained=own.weights == "trained")
    encoder, settings = load_encoder(str(own.path), block=own.block)
    expected = config.model_settings().token_width
    if settings.width != expected:
        raise UserError(
            f"{own.path} gives tokens of width {settings.width}, but encoder.kind={own.kind} "
            f"and encoder.token_width ask for {expected}"
        )
    return encoder
