"""The licence of each part, as its source states it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vosr_jax.config import Config

NOT_STATED = "not stated"
_RELEASE = "Apache-2.0 unless otherwise noted; weights may have separate terms (cswry/VOSR, README)"
_AUTOENCODERS = {
    "sd2": "CreativeML Open RAIL++-M (model card of Stable Diffusion 2.1 base)",
    "qwen": "Apache-2.0 (model card of Qwen/Qwen-Image); the 2D extract: " + _RELEASE,
    "space_to_depth": "nothing to license, it has no weights",
}
_DINOV2 = "Apache-2.0 (README of facebookresearch/dinov2)"


def licences(config: "Config", origin: str) -> dict[str, str]:
    """What the sources of a model's parts state.

    Args:
      config: of the model.
      origin: "release", "export" or "workdir": where the denoiser comes from.

    Returns:
      {part: licence and who states it}; for a denoiser trained here "not stated": that is for
      whoever trained it to say.
    """
    official = bool(config.sampling.truncate)
    stated = {"denoiser": _RELEASE if official or origin == "release" else NOT_STATED}
    stated["autoencoder"] = _AUTOENCODERS[config.autoencoder.kind]
    if config.autoencoder.decoder is not None:
        stated["light decoder"] = _RELEASE
    if config.encoder.kind != "none":
        stated["visual encoder"] = _DINOV2
    return stated
