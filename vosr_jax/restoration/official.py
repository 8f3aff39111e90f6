"""A folder in the official layout as a restoration model."""

from pathlib import Path
from typing import Any

from vosr_jax.diffusion.sampling import SamplerSettings
from vosr_jax.errors import UserError
from vosr_jax.restoration.model import RestorationModel
from vosr_jax.weights.release import find_part, load_denoiser, read_args

_AUTOENCODERS = {
    "sd2": "preset/ckpts/stable-diffusion-2-1-base",
    "qwen": "preset/ckpts/Qwen-Image-vae-2d",
}
_LIGHT_DECODER = "preset/ckpts/sd21_lwdecoder.pth"
_ENCODERS = {
    "dinov2b": "dinov2_vitb14_pretrain.pth",
    "dinov2l": "dinov2_vitl14_pretrain.pth",
    "dinov2g": "dinov2_vitg14_pretrain.pth",
}
_ENCODER_FOLDER = "preset/ckpts/torch_cache/checkpoints"


def load_official(path: str | Path) -> RestorationModel:
    """Read a release folder, or weights inside one, with its frozen networks.

    Raises:
      UserError: args.json, the weights or a frozen network is missing, unknown or damaged.
    """
    args, file = read_args(path)
    layers = _numbers(args, "layer_dinov2b_list", file)
    denoiser, settings = load_denoiser(path)
    encoder, block = _encoder(args, int(layers[0]), file)
    notes = []
    if len(layers) > 1:
        notes.append(f"{file} names {len(layers)} visual layers; the official network uses one")
    return RestorationModel(
        name=file.parent.name,
        denoiser=denoiser,
        autoencoder=_autoencoder(args, file),
        encoder=encoder,
        token_size=int(args.get("dinov2_size", 448)),
        token_block=block,
        sampler=_sampler(args, settings.r_embedding, file),
        colour_fix="adain",
        truncate=True,
        notes=tuple(notes),
    )


def _sampler(args: dict[str, Any], r_input: bool, file: Path) -> SamplerSettings:
    weak = _numbers(args, "weak_cond_strength_aelq_list", file)
    return SamplerSettings(
        steps=int(args.get("infer_steps") or (1 if r_input else 25)),
        guidance_scale=float(args.get("cfg_scale", 1.0)),
        guidance_interval=(float(args.get("t_start", 0.0)), float(args.get("t_end", 1.0))),
        weak_strength=sum(weak) / len(weak),
        r_input=r_input,
    )


def _autoencoder(args: dict[str, Any], file: Path):
    from vosr_jax.weights import load_autoencoder

    kind = args["ae_type"]
    path = find_part(args.get("ae_path") or _AUTOENCODERS[kind], file)
    if kind != "sd2":
        return load_autoencoder(path)[0]
    decoder = find_part(args.get("lwdecoder_path") or _LIGHT_DECODER, file)
    return load_autoencoder(path, decoder=decoder)[0]


def _encoder(args: dict[str, Any], block: int, file: Path):
    """(DINOv2 up to the block, the block counted from the front)."""
    from vosr_jax.weights import load_encoder

    kind = args.get("enc_type")
    if kind not in _ENCODERS:
        raise UserError(f"{file}: enc_type is {kind!r}; known are {', '.join(_ENCODERS)}")
    path = find_part(f"{_ENCODER_FOLDER}/{_ENCODERS[kind]}", file)
    if block < 0:
        block += load_encoder(path)[1].depth
    return load_encoder(path, block=block)[0], block


def _numbers(args: dict[str, Any], key: str, file: Path) -> list[float]:
    value = args.get(key)
    if not isinstance(value, list) or not all(isinstance(v, int | float) for v in value):
        raise UserError(f"{file}: {key} must be a list of numbers, not {value!r}")
    if not value:
        raise UserError(f"{file}: {key} must not be empty")
    return value
