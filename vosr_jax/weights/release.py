"""The official layout: a checkpoint's args.json, its weights, and the networks around it."""

from pathlib import Path
from typing import Any

from vosr_jax.errors import UserError
from vosr_jax.models.lightning_dit import LightningDiT, LightningDiTSettings
from vosr_jax.weights.json_file import read_json_object

_ARGS = "args.json"
_LEVELS = 5
_LATENT_CHANNELS = {"sd2": 4, "qwen": 16}
_DOWNSCALE = 8
_FOLDERS = ("clean_weights", "checkpoints", "")
_WEIGHTS = ("ema_model.safetensors", "model.safetensors", "ema_model.pth", "model.pth")


def find_args(path: str | Path) -> Path | None:
    """The args.json of a checkpoint: in the folder itself or up to five folders above."""
    folder = Path(path).resolve()
    for candidate in [folder, *folder.parents][: _LEVELS + 1]:
        if (candidate / _ARGS).is_file():
            return candidate / _ARGS
    return None


def read_args(path: str | Path) -> tuple[dict[str, Any], Path]:
    """A checkpoint's settings.

    Args:
      path: a folder in the official layout, or weights inside one.

    Returns:
      (content of args.json, its file).

    Raises:
      UserError: there is none, or it is no json object.
    """
    file = find_args(path)
    if file is None:
        raise UserError(f"{path} has no {_ARGS}, neither in it nor up to five folders above")
    return read_json_object(file), file


def find_weights(path: str | Path) -> Path:
    """The denoiser's weights: averaged ones before raw ones, as the official command looks.

    Raises:
      UserError: none in the folder.
    """
    path = Path(path)
    if path.is_file():
        return path
    for folder in _FOLDERS:
        for name in _WEIGHTS:
            if (path / folder / name).is_file():
                return path / folder / name
    raise UserError(f"{path} holds no weights; expected checkpoints/{_WEIGHTS[0]} or the like")


def denoiser_settings(args: dict[str, Any], file: Path) -> LightningDiTSettings:
    """args.json as the network's settings.

    Raises:
      UserError: a key is missing or its value unknown.
    """
    channels = _LATENT_CHANNELS.get(args.get("ae_type", ""))
    if channels is None:
        known = ", ".join(_LATENT_CHANNELS)
        raise UserError(f"{file}: ae_type is {args.get('ae_type')!r}; known are {known}")
    try:
        return LightningDiTSettings(
            latent_channels=channels,
            latent_size=int(args["resolution"]) // _DOWNSCALE,
            patch_size=int(args["patch_size"]),
            width=int(args["dim"]),
            depth=int(args["depth"]),
            heads=int(args["num_heads"]),
            mlp_ratio=float(args["mlp_ratio"]),
            token_width=int(args["enc_dim"]),
            token_hidden_ratio=int(args["encdim_ratio"]),
            r_embedding=bool(args.get("auxiliary_time_cond", False)),
            qk_norm=bool(args["use_qknorm"]),
            swiglu=bool(args["use_swiglu"]),
            rotary=bool(args["use_rope"]),
            rms_norm=bool(args["use_rmsnorm"]),
        )
    except KeyError as error:
        raise UserError(f"{file} lacks the key {error.args[0]}") from error
    except (TypeError, ValueError) as error:
        raise UserError(f"{file} has a value of the wrong kind ({error})") from error


def load_denoiser(path: str | Path, **options) -> tuple[LightningDiT, LightningDiTSettings]:
    """Read a denoiser from a folder in the official layout, or a weights' file inside one.

    Args:
      path: the folder or file.
      **options: `dtype` and `remat` of `LightningDiT`.

    Returns:
      (network in float32, its settings).

    Raises:
      UserError: a file is missing, damaged, or its tensors are not the network's.
    """
    from vosr_jax.weights.lightning_dit import from_official
    from vosr_jax.weights.tensors import read_tensors

    args, file = read_args(path)
    settings = denoiser_settings(args, file)
    weights = find_weights(path)
    return from_official(read_tensors(weights), settings, str(weights), **options), settings


def find_part(named: str, args_file: Path) -> Path:
    """A frozen network that the official code names relative to its repository's folder.

    Looked for from the working folder and from every folder above the checkpoint, and beside
    the checkpoint by the last parts of its name.

    Raises:
      UserError: it lies in none of these places.
    """
    relative = Path(named)
    tails = [Path(*relative.parts[-keep:]) for keep in range(len(relative.parts), 0, -1)]
    places = [relative]
    for folder in args_file.resolve().parents:
        places += [folder / tail for tail in tails]
    for place in places:
        if place.exists():
            return place
    raise UserError(
        f"{args_file} needs {named}, which lies neither in the working folder nor in any folder "
        "above the checkpoint; put it beside the checkpoint or into preset/ckpts"
    )
