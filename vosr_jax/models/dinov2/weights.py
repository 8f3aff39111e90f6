"""Load official DINOv2 files into our network."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from flax import nnx

from vosr_jax.errors import UserError
from vosr_jax.files import read_json_object
from vosr_jax.models.dinov2.network import DINOv2, DINOv2Settings
from vosr_jax.parameters.lazy import HostNetwork
from vosr_jax.parameters.safetensors_files import find_safetensors
from vosr_jax.parameters.tensors import FLAT, SAME, Entry, Layout, assign, dense, open_tensors

_HEAD_CHANNELS = 64


def open_encoder(
    path: str | Path, *, block: int | None = None
) -> tuple[HostNetwork[DINOv2], DINOv2Settings]:
    """Open a released DINOv2 file (facebookresearch/dinov2).

    Args:
      path: a .pth or .safetensors file, or a folder with `model.safetensors` or one such file.
        A `config.json` beside it may set `num_heads`, `interpolate_offset` and
        `interpolate_antialias`; the defaults are those of the released networks.
      block: the 0-based block whose tokens are needed; later blocks are dropped.

    Returns:
      (network in float32, with its values still in the file; its settings).

    Raises:
      UserError: no such file, or its tensors are not those of a DINOv2.
    """
    path = find_file(Path(path))
    tensors = open_tensors(path)
    settings = _settings(tensors, path)
    if block is not None:
        if not 0 <= block < settings.depth:
            raise UserError(f"{path} has blocks 0 to {settings.depth - 1}; block {block} is asked")
        settings = replace(settings, kept_blocks=None if block == settings.depth - 1 else block + 1)
    # The mask token serves DINOv2's own training only.
    skipped = [f"blocks.{i}." for i in range(settings.blocks, settings.depth)]
    model = assign(
        lambda: DINOv2(settings, rngs=nnx.Rngs(0)),
        entries(settings),
        _split_positions(tensors, settings),
        path,
        ignored=("mask_token", "head.", *skipped),
    )
    return model, settings


def read_settings(path: str | Path) -> DINOv2Settings:
    """Read only the settings, for all blocks; errors as in `open_encoder`."""
    path = find_file(Path(path))
    return _settings(open_tensors(path), path)


def find_file(path: Path) -> Path:
    """Find the weights' file (or the shards' index) in a folder; a file is returned as it is.

    Raises:
      UserError: the folder holds none, or several.
    """
    if not path.is_dir():
        return path
    whole = find_safetensors(path, "model")
    if whole is not None:
        return whole
    found = sorted(p for p in path.iterdir() if p.suffix in (".safetensors", ".pth"))
    if len(found) != 1:
        raise UserError(f"{path}: expected one .safetensors or .pth file, found {len(found)}")
    return found[0]


def _settings(tensors: Mapping[str, np.ndarray], path: Path) -> DINOv2Settings:
    """Derive the sizes from the weights, and the rest from config.json if it exists."""
    try:
        kernel = tensors["patch_embed.proj.weight"]
        width, patch = kernel.shape[0], kernel.shape[-1]
        grid = math.isqrt(tensors["pos_embed"].shape[1] - 1)
        swiglu = "blocks.0.mlp.w12.weight" in tensors
        ffn = tensors["blocks.0.mlp.w3.weight" if swiglu else "blocks.0.mlp.fc2.weight"].shape[-1]
    except KeyError as error:
        raise UserError(f"{path} is no DINOv2: tensor {error.args[0]} is missing") from error
    except IndexError as error:
        raise UserError(f"{path} is no DINOv2: a tensor has too few dimensions") from error
    blocks = [name.split(".")[1] for name in tensors if name.startswith("blocks.")]
    registers = tensors["register_tokens"].shape[1] if "register_tokens" in tensors else 0
    settings = DINOv2Settings(
        width=width,
        depth=1 + max(int(index) for index in blocks if index.isdigit()),
        heads=max(width // _HEAD_CHANNELS, 1),
        ffn_width=ffn,
        swiglu=swiglu,
        patch_size=patch,
        grid=grid,
        registers=registers,
        layer_scale="blocks.0.ls1.gamma" in tensors,
        interpolate_offset=0.0 if registers else 0.1,
        interpolate_antialias=bool(registers),
    )
    return _with_config(settings, path.parent / "config.json")


def _with_config(settings: DINOv2Settings, config_file: Path) -> DINOv2Settings:
    """Update settings from a config.json beside the weights."""
    if config_file.is_file():
        config = read_json_object(config_file)
        settings = replace(
            settings,
            heads=config.get("num_heads", settings.heads),
            interpolate_offset=config.get("interpolate_offset", settings.interpolate_offset),
            interpolate_antialias=config.get(
                "interpolate_antialias", settings.interpolate_antialias
            ),
        )
    if not isinstance(settings.heads, int) or settings.heads < 1:
        raise UserError(f"{config_file}: num_heads is {settings.heads!r}, not a number of heads")
    if settings.width % settings.heads:
        raise UserError(
            f"a DINOv2 of width {settings.width} cannot have {settings.heads} heads: "
            f"state num_heads in {config_file}"
        )
    return settings


def _split_positions(
    tensors: Mapping[str, np.ndarray], settings: DINOv2Settings
) -> dict[str, np.ndarray]:
    """Split the position embedding into two tensors, for the class token and the patches."""
    tensors = dict(tensors)
    positions = tensors.pop("pos_embed")
    tensors["pos_embed[cls]"] = positions[:, :1]
    tensors["pos_embed[patches]"] = positions[:, 1:]
    return tensors


_ROW = Layout(lambda official, shape: official.reshape(shape), lambda ours: ours[None, None])
_TOKENS = Layout(lambda official, shape: official[0], lambda ours: ours[None])
_GRID = Layout(
    lambda official, shape: official.reshape(shape),
    lambda ours: ours.reshape(1, -1, ours.shape[-1]),
)


def _patches(size: int) -> Layout:
    """Layout of a convolution over whole patches as a matrix over their pixels."""
    return Layout(
        lambda official, shape: official.transpose(2, 3, 1, 0).reshape(shape),
        lambda ours: ours.reshape(size, size, -1, ours.shape[-1]).transpose(3, 2, 0, 1),
    )


def entries(settings: DINOv2Settings) -> list[Entry]:
    """The table of names; `pos_embed` is split into its class token and its patches."""
    table = [
        Entry("patch_embed.proj.weight", ("patch", "kernel"), _patches(settings.patch_size)),
        Entry("patch_embed.proj.bias", ("patch", "bias")),
        Entry("cls_token", ("cls_token",), _ROW),
        Entry("pos_embed[cls]", ("position_cls",), _ROW),
        Entry("pos_embed[patches]", ("position_grid",), _GRID),
        Entry("norm.weight", ("norm", "weight")),
        Entry("norm.bias", ("norm", "bias")),
    ]
    if settings.registers:
        table.append(Entry("register_tokens", ("register_tokens",), _TOKENS))
    ffn = ("w12", "w3") if settings.swiglu else ("fc1", "fc2")
    names: list[tuple[str, tuple[str, ...], Layout]] = [
        ("norm1.weight", ("norm1", "weight"), SAME),
        ("norm1.bias", ("norm1", "bias"), SAME),
        ("attn.qkv.weight", ("qkv", "kernel"), dense()),
        ("attn.qkv.bias", ("qkv", "bias"), FLAT),
        ("attn.proj.weight", ("proj", "kernel"), dense()),
        ("attn.proj.bias", ("proj", "bias"), SAME),
        ("norm2.weight", ("norm2", "weight"), SAME),
        ("norm2.bias", ("norm2", "bias"), SAME),
        (f"mlp.{ffn[0]}.weight", ("ffn_in", "kernel"), dense()),
        (f"mlp.{ffn[0]}.bias", ("ffn_in", "bias"), FLAT),
        (f"mlp.{ffn[1]}.weight", ("ffn_out", "kernel"), dense()),
        (f"mlp.{ffn[1]}.bias", ("ffn_out", "bias"), SAME),
    ]
    if settings.layer_scale:
        names += [("ls1.gamma", ("scale1",), SAME), ("ls2.gamma", ("scale2",), SAME)]
    for layer in range(settings.blocks):
        for official, ours, layout in names:
            table.append(Entry(f"blocks.{layer}.{official}", ("blocks", *ours), layout, layer))
    return table
