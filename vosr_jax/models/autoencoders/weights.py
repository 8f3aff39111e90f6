"""Find and read the autoencoder in a folder or file."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vosr_jax.errors import UserError
from vosr_jax.files import read_json_object
from vosr_jax.models.autoencoders import qwen_weights as qwen_autoencoder
from vosr_jax.models.autoencoders import sd_weights as sd_autoencoder
from vosr_jax.models.autoencoders.qwen import QwenAutoencoder, QwenSettings
from vosr_jax.models.autoencoders.sd import SDAutoencoder, SDSettings
from vosr_jax.parameters.lazy import HostNetwork
from vosr_jax.parameters.safetensors_files import INDEX
from vosr_jax.parameters.tensors import open_tensors, state_dict
from vosr_jax.parameters.torch_reader import read_torch_zip

_STEM = "diffusion_pytorch_model"
_WEIGHTS = (f"{_STEM}.safetensors", _STEM + INDEX, f"{_STEM}.bin")
_PARTS = ("encoder", "decoder")
LIGHT_DECODER = "LightDecoder"


def open_autoencoder(
    path: str | Path,
    *,
    decoder: str | Path | None = None,
    parts: tuple[str, ...] = _PARTS,
) -> (
    tuple[HostNetwork[SDAutoencoder], SDSettings]
    | tuple[HostNetwork[QwenAutoencoder], QwenSettings]
):
    """Open an autoencoder; its values stay in the files. See `weights.load_autoencoder`."""
    if not parts or set(parts) - set(_PARTS):
        raise ValueError(f"parts are of {_PARTS}, not {parts}")
    path = Path(path)
    config_file, weights = locate(path)
    if config_file is None:
        return _light(weights)
    config = read_json_object(config_file)
    kind = config.get("_class_name", "AutoencoderKL")
    if kind == LIGHT_DECODER:
        return _light(path)
    if kind == "AutoencoderKL":
        return _stable_diffusion(config, config_file, weights, decoder, parts)
    if decoder is not None:
        raise UserError(f"{decoder}: a light decoder cannot take the place of {kind}'s decoder")
    if kind == "AutoencoderKLQwenImage2D":
        return qwen_autoencoder.open_autoencoder(config, config_file, weights, parts)
    raise UserError(
        f"{config_file}: autoencoder {kind!r} is unknown; "
        "AutoencoderKL and AutoencoderKLQwenImage2D can be run"
    )


def locate(path: Path) -> tuple[Path | None, Path]:
    """Find the files of an autoencoder.

    Args:
      path: as in `open_autoencoder`.

    Returns:
      (config.json or None for a light decoder's file, the weights' file).

    Raises:
      UserError: there is no autoencoder.
    """
    if path.is_file():
        config = path.parent / "config.json"
        if path.suffix in (".pth", ".pt") or not config.is_file():
            return None, path
        return config, path
    for folder in (path, path / "vae"):
        config = folder / "config.json"
        found = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
        if config.is_file() and found:
            return config, found[0]
        if config.is_file() and folder.name == "vae":
            break
    if not path.exists():
        raise UserError(f"{path} does not exist; name an autoencoder's folder or file")
    raise UserError(f"{path} holds no autoencoder: config.json and {_WEIGHTS[0]} are expected")


def _stable_diffusion(
    config: dict[str, Any],
    config_file: Path,
    weights: Path,
    decoder: str | Path | None,
    parts: tuple[str, ...],
) -> tuple[HostNetwork[SDAutoencoder], SDSettings]:
    settings = sd_autoencoder.settings_from_config(config, config_file)
    tensors, source, ignored = open_tensors(weights), str(weights), []
    if "encoder" not in parts:
        settings = replace(settings, encoder=None)
        ignored += ["encoder.", "quant_conv."]
    if "decoder" not in parts:
        settings = replace(settings, decoder=None)
        ignored += ["decoder.", "post_quant_conv."]
    elif decoder is not None:
        light, light_tensors = _read_light(Path(decoder))
        if light.latent_channels != settings.latent_channels:
            raise UserError(
                f"{decoder} decodes {light.latent_channels} latent channels, "
                f"{weights} has {settings.latent_channels}"
            )
        settings = replace(settings, decoder=light.decoder)
        own = {k: v for k, v in tensors.items() if not k.startswith(("decoder.", "post_quant"))}
        tensors, source = own | light_tensors, f"{weights} with {decoder}"
    return sd_autoencoder.build(settings, tensors, source, tuple(ignored)), settings


def _light(path: Path) -> tuple[HostNetwork[SDAutoencoder], SDSettings]:
    settings, tensors = _read_light(path)
    return sd_autoencoder.build(settings, tensors, str(path), ()), settings


def _read_light(path: Path) -> tuple[SDSettings, dict[str, np.ndarray]]:
    config, tensors = read_light(path)
    return sd_autoencoder.light_settings(config, path), sd_autoencoder.light_tensors(tensors)


def read_light(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read a light decoder's config and tensors, from the official file or an export's folder.

    Raises:
      UserError: it is damaged, or not a light decoder.
    """
    if path.is_dir() or path.suffix == ".safetensors":
        config_file, weights = locate(path)
        config = {} if config_file is None else read_json_object(config_file)
        if config.pop("_class_name", None) != LIGHT_DECODER:
            raise UserError(f"{path} is no light decoder; {LIGHT_DECODER} is expected")
        return config, open_tensors(weights)
    saved = read_torch_zip(path)
    if not isinstance(saved, dict) or not isinstance(saved.get("config"), dict):
        raise UserError(f"{path} is no light decoder: it carries no config")
    return saved["config"], state_dict(saved, path)
