"""The official layout: a checkpoint's args.json, its weights and its frozen networks."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vosr_jax.config import Config
from vosr_jax.errors import UserError
from vosr_jax.files import read_json_object
from vosr_jax.models.dinov2 import weights as dinov2
from vosr_jax.models.lightning_dit.network import LightningDiT
from vosr_jax.models.lightning_dit.weights import from_official
from vosr_jax.parameters.lazy import HostNetwork
from vosr_jax.parameters.safetensors_files import INDEX
from vosr_jax.parameters.tensors import open_tensors
from vosr_jax.weights.official_args import config_of_args

_ARGS = "args.json"
_LEVELS = 5
_FOLDERS = ("clean_weights", "checkpoints", "")
_STEMS = ("ema_model", "model")
_WEIGHTS = tuple(f"{stem}{end}" for stem in _STEMS for end in (".safetensors", INDEX, ".pth"))
_RELEASE = "huggingface.co/CSWRY/VOSR"
_HOMES = {
    "dinov2_vit": "dl.fbaipublicfiles.com/dinov2, and the release's torch_cache",
    "stable-diffusion-2-1-base": f"{_RELEASE}, or any copy of Stable Diffusion 2.1 base",
    "Qwen-Image-vae-2d": _RELEASE,
    "sd21_lwdecoder": _RELEASE,
}
_R_EMBEDDING = "r_embedder."
# Prefixes that PyTorch's wrappers put before a name, and counters that they save.
_WRAPPERS = ("module.", "_orig_mod.", "ema_model.")
_COUNTERS = frozenset({"n_averaged", "step_count", "decay"})


def find_args(path: Any) -> Path | None:
    """Find a checkpoint's args.json, in the folder itself or up to five folders above."""
    # A bucket's address is not a local path and has no links.
    folder = path if "://" in str(path) else Path(path).resolve()
    for candidate in [folder, *folder.parents][: _LEVELS + 1]:
        if (candidate / _ARGS).is_file():
            return candidate / _ARGS
    return None


def read_args(path: str | Path) -> tuple[dict[str, Any], Path]:
    """Read a checkpoint's args.json.

    Args:
      path: a folder in the official layout, or weights inside one.

    Returns:
      (content of args.json, its file).

    Raises:
      UserError: there is none, or it is not a json object.
    """
    file = find_args(path)
    if file is None:
        raise UserError(f"{path} has no {_ARGS}, neither in it nor up to five folders above")
    return read_json_object(file), file


def find_weights(path: str | Path) -> Path:
    """Find the denoiser's weights: averaged before raw ones, as the official command does.

    Raises:
      UserError: the folder has none, or several that might be meant.
    """
    path = Path(path)
    if path.is_file():
        return path
    for folder in _FOLDERS:
        for name in _WEIGHTS:
            if (path / folder / name).is_file():
                return path / folder / name
    # The official command falls back to any file below. Take one only if the choice is clear.
    below = sorted(file for file in path.rglob("*.safetensors"))
    averaged = [file for file in below if file.name.startswith(_STEMS[0])]
    for candidates in (averaged, below):
        if len(candidates) == 1:
            return candidates[0]
    if below:
        raise UserError(
            f"{path} holds {len(below)} weights' files ({below[0]}, {below[-1]}, ...); "
            "name the one that is meant"
        )
    raise UserError(f"{path} holds no weights; expected checkpoints/{_WEIGHTS[0]} or the like")


def plain_names(tensors: Mapping[str, Any], weights: str | Path) -> dict[str, Any]:
    """Map a denoiser's tensors to the network's own names.

    Data parallelism, compilation and averaging in PyTorch save a network under a prefix, with
    counters beside it. Prefixes are removed and counters skipped.

    Args:
      tensors: {name in the file: tensor}.
      weights: the file, for messages.

    Raises:
      UserError: two tensors get one name.
    """
    plain: dict[str, Any] = {}
    for full, tensor in tensors.items():
        name = full
        while name.startswith(_WRAPPERS):
            name = name.removeprefix(next(one for one in _WRAPPERS if name.startswith(one)))
        if name in _COUNTERS:
            continue
        if name in plain:
            raise UserError(f"{weights} holds {name} twice, once as {full}; save one network alone")
        plain[name] = tensor
    return plain


def takes_interval_end(tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether official tensors belong to a network that takes the interval's end r."""
    return any(name.startswith(_R_EMBEDDING) for name in tensors)


def open_release(
    path: str | Path, **options
) -> tuple[HostNetwork[LightningDiT], Config, tuple[str, ...]]:
    """Open a denoiser as its args.json describes it, without its frozen networks.

    Args:
      path: a folder in the official layout, or a weights file inside one.
      **options: `dtype` and `remat` of `LightningDiT`.

    Returns:
      (network in float32, its values still in the file; its config; notes).

    Raises:
      UserError: a file is missing or damaged, its tensors do not fit the network, or args.json
        has a value that is not understood.
    """
    args, file = read_args(path)
    weights = find_weights(path)
    tensors = plain_names(open_tensors(weights), weights)
    config, notes = config_of_args(args, file, r_embedding=takes_interval_end(tensors))
    network = from_official(tensors, config.model_settings(), str(weights), **options)
    return network, config, notes


def find_part(named: str, args_file: Path) -> Path:
    """Find a frozen network that the official code names relative to its repository.

    The search starts in the working folder, then in the checkpoint's folder and every folder above
    it. In the latter, the last parts of the name are tried too.

    Raises:
      UserError: it is in none of these places.
    """
    relative = Path(named)
    tails = [Path(*relative.parts[-keep:]) for keep in range(len(relative.parts), 0, -1)]
    places = [relative]
    # The hub's cache stores files as links to elsewhere, so resolve the folder, not the file.
    home = args_file.parent.resolve()
    for folder in (home, *home.parents):
        places += [folder / tail for tail in tails]
    for place in places:
        if place.exists():
            return place
    raise UserError(
        f"{args_file} needs {named}, which lies neither in the working folder nor in any folder "
        "above the checkpoint; put it beside the checkpoint or into preset/ckpts"
        f"{_home(relative)}"
    )


def _home(part: Path) -> str:
    """A hint where a missing part comes from, or "" if that is unknown."""
    for ending, source in _HOMES.items():
        if ending in part.as_posix():
            return f" (it comes from {source})"
    return ""


def with_parts(config: Config, args: dict[str, Any], args_file: Path) -> Config:
    """Point a checkpoint's config at the local files of its frozen networks.

    Raises:
      UserError: one of them is missing or damaged.
    """
    own = config.autoencoder
    decoder = None if own.decoder is None else str(find_part(own.decoder, args_file))
    autoencoder = dataclasses.replace(
        own, path=str(find_part(str(own.path), args_file)), decoder=decoder
    )
    path, block = find_part(str(config.encoder.path), args_file), args["layer_dinov2b_list"][0]
    if block < 0:
        block += dinov2.read_settings(path).depth
        if block < 0:
            raise UserError(f"{args_file}: layer_dinov2b_list names a block that {path} has not")
    encoder = dataclasses.replace(config.encoder, path=str(path), block=block)
    return dataclasses.replace(config, autoencoder=autoencoder, encoder=encoder)
