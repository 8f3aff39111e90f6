"""Official files to ours and back, read without running any code from them."""

from pathlib import Path


def load_denoiser(path: str | Path):
    """Read a denoiser: an official VOSR checkpoint, or one of our exports.

    Args:
      path: a folder in the official layout, a weights' file inside one, or an export's folder.

    Returns:
      (network, its settings).

    Raises:
      UserError: no such file, a damaged one, or one whose tensors are not the network's.
    """
    from vosr_jax.weights import release
    from vosr_jax.weights.export import is_export, load_export

    if is_export(path):
        _, denoiser = load_export(path)
        return denoiser, denoiser.settings
    return release.load_denoiser(path)


def load_encoder(path: str | Path, *, block: int | None = None):
    """Read a DINOv2 visual encoder.

    Args:
      path: a .pth or .safetensors file with the official names, or a folder with one.
      block: the 0-based block whose tokens will be asked for; later blocks are not kept.

    Returns:
      (network, its settings).

    Raises:
      UserError: no such file, a damaged one, or one whose tensors are not a DINOv2's.
    """
    from vosr_jax.weights import dinov2

    return dinov2.load(path, block=block)


def load_autoencoder(
    path: str | Path,
    *,
    decoder: str | Path | None = None,
    parts: tuple[str, ...] = ("encoder", "decoder"),
):
    """Read an autoencoder; its kind is taken from its config.json or from the file's content.

    Args:
      path: a folder with `config.json` and weights, or the folder above its `vae` folder, or the
        weights' file beside a config.json (Stable Diffusion's AutoencoderKL, the Qwen-Image 2D
        VAE), or the light decoder's file `sd21_lwdecoder.pth`, which has no encoder.
      decoder: the light decoder's file, to take the place of a Stable Diffusion VAE's decoder.
      parts: what to keep, of "encoder" and "decoder"; training needs the encoder alone.

    Returns:
      (network, its settings).

    Raises:
      UserError: no such file, a damaged one, an autoencoder of an unknown kind, or tensors that
        are not the network's.
    """
    from vosr_jax.weights import autoencoders

    return autoencoders.load(path, decoder=decoder, parts=parts)
