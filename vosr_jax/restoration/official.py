"""A folder in the official layout as a restoration model.

`args.json` says what the checkpoint is; the autoencoder and DINOv2 lie where it says, looked for
from the working folder and from every folder above the checkpoint, or beside the checkpoint.
"""

import json
from pathlib import Path
from typing import Any

from vosr_jax.diffusion.sampling import SamplerSettings
from vosr_jax.errors import UserError
from vosr_jax.restoration.model import RestorationModel

_ARGS = "args.json"
_LEVELS = 5
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


def find_args(path: Path) -> Path | None:
    """The args.json of a checkpoint: in the folder itself or up to five folders above."""
    folder = path.resolve()
    for candidate in [folder, *folder.parents][: _LEVELS + 1]:
        if (candidate / _ARGS).is_file():
            return candidate / _ARGS
    return None


def load_official(path: str | Path) -> RestorationModel:
    """Read a release folder, or weights inside one, with its frozen networks.

    Raises:
      UserError: args.json, the weights or a frozen network is missing, unknown or damaged.
    """
    from vosr_jax.weights import load_autoencoder, load_denoiser, load_encoder

    path = Path(path)
    args_file = find_args(path)
    if args_file is None:
        raise UserError(f"{path} has no {_ARGS}, neither in it nor up to five folders above")
    args = _read(args_file)
    kind = _choice(args, "ae_type", _AUTOENCODERS, args_file)
    encoder_kind = _choice(args, "enc_type", _ENCODERS, args_file)
    layers = _list(args, "layer_dinov2b_list", args_file)
    weak = [float(value) for value in _list(args, "weak_cond_strength_aelq_list", args_file)]
    notes = []
    if len(layers) > 1:
        notes.append(f"{_ARGS} names {len(layers)} visual layers; the official network uses one")

    denoiser, settings = load_denoiser(path)
    autoencoder_path = find_file(args.get("ae_path") or _AUTOENCODERS[kind], args_file)
    decoder = None
    if kind == "sd2":
        decoder = find_file(args.get("lwdecoder_path") or _LIGHT_DECODER, args_file)
    autoencoder, _ = load_autoencoder(autoencoder_path, decoder=decoder)
    block = int(layers[0])
    encoder_file = find_file(f"{_ENCODER_FOLDER}/{_ENCODERS[encoder_kind]}", args_file)
    if block < 0:
        block += load_encoder(encoder_file)[1].depth
    encoder, _ = load_encoder(encoder_file, block=block)
    sampler = SamplerSettings(
        steps=int(args.get("infer_steps") or 25),
        guidance_scale=float(args.get("cfg_scale", 1.0)),
        guidance_interval=(float(args.get("t_start", 0.0)), float(args.get("t_end", 1.0))),
        weak_strength=sum(weak) / len(weak),
        r_input=settings.r_embedding,
    )
    return RestorationModel(
        name=args_file.parent.name,
        denoiser=denoiser,
        autoencoder=autoencoder,
        encoder=encoder,
        token_size=int(args.get("dinov2_size", 448)),
        token_block=block,
        sampler=sampler,
        colour_fix="adain",
        truncate=True,
        notes=tuple(notes),
    )


def find_file(named: str, args_file: Path) -> Path:
    """A frozen network that args.json names relative to the official repository's folder.

    Raises:
      UserError: it lies in none of the places looked at.
    """
    relative = Path(named)
    places = [relative]
    for folder in args_file.resolve().parents:
        places += [folder / relative, folder / relative.name]
        if relative.parent.parent.name:
            places.append(
                folder / relative.parent.parent.name / relative.parent.name / relative.name
            )
    for place in places:
        if place.exists():
            return place
    raise UserError(
        f"{args_file} needs {named}, which lies neither in the working folder nor in any folder "
        "above the checkpoint; put it beside the checkpoint or into preset/ckpts"
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        args = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no readable json file ({error})") from error
    if not isinstance(args, dict):
        raise UserError(f"{path} must hold a json object")
    return args


def _choice(args: dict, key: str, known: dict, path: Path) -> str:
    if args.get(key) not in known:
        raise UserError(f"{path}: {key} is {args.get(key)!r}; known are {', '.join(known)}")
    return args[key]


def _list(args: dict, key: str, path: Path) -> list:
    value = args.get(key)
    if not isinstance(value, list) or not value:
        raise UserError(f"{path}: {key} must be a list of numbers, not {value!r}")
    return value
