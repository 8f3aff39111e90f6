"""Conversion between official files and ours; no code inside a file is ever run."""

from pathlib import Path


def load_denoiser(path: str | Path):
    """Read a denoiser.

    Args:
      path: anything `resolve.resolve` takes: a name, an export, a workdir, a folder in the
        official layout or a weights file inside one, a hub id.

    Returns:
      (network, its settings).

    Raises:
      UserError: no such model, a damaged file, or tensors that do not fit the network.
    """
    # Here and below: networks need JAX, and this package is also imported for names and checksums.
    from vosr_jax.weights import opening, resolve

    opened = opening.open_denoiser(resolve.resolve(path))
    return opened.network.network(), opened.config.model_settings()


def load_encoder(path: str | Path, *, block: int | None = None):
    """Read a DINOv2 visual encoder.

    Args:
      path: a .pth or .safetensors file with the official names, or a folder with one.
      block: 0-based block whose tokens are used; later blocks are not kept.

    Returns:
      (network, its settings).

    Raises:
      UserError: no such file, a damaged one, or tensors that do not fit a DINOv2.
    """
    # As in `load_denoiser`.
    from vosr_jax.models.dinov2 import weights as dinov2

    network, settings = dinov2.open_encoder(path, block=block)
    return network.network(), settings


def load_autoencoder(
    path: str | Path,
    *,
    decoder: str | Path | None = None,
    parts: tuple[str, ...] = ("encoder", "decoder"),
):
    """Read an autoencoder; its kind follows from its config.json or from the file's content.

    Args:
      path: a folder with `config.json` and weights, or the folder above its `vae` folder, or the
        weights file beside a config.json (Stable Diffusion's AutoencoderKL, the Qwen-Image 2D
        VAE), or the light decoder's file `sd21_lwdecoder.pth`, which has no encoder.
      decoder: the light decoder's file, to replace a Stable Diffusion VAE's decoder.
      parts: which of "encoder" and "decoder" to keep; training needs the encoder alone.

    Returns:
      (network, its settings).

    Raises:
      UserError: no such file, a damaged one, an autoencoder of an unknown kind, or tensors that
        do not fit the network.
    """
    # As in `load_denoiser`.
    from vosr_jax.models.autoencoders import weights as autoencoders

    network, settings = autoencoders.open_autoencoder(path, decoder=decoder, parts=parts)
    return network.network(), settings
