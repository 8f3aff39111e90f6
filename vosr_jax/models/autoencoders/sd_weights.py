"""Stable Diffusion's autoencoder and the light decoder: official names and ours."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from vosr_jax.errors import UserError
from vosr_jax.models.autoencoders.sd import SDAutoencoder, SDCoderSettings, SDSettings
from vosr_jax.parameters.lazy import HostNetwork
from vosr_jax.parameters.tensors import CONV, POINTWISE, Entry, Layout, assign, dense

# Attention names of files written before diffusers renamed them, such as Stable Diffusion 2.1's.
_NEW_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_NAME = re.compile(rf"(.*\.attentions\.\d+\.)({'|'.join(_NEW_NAMES)})(\..*)")


def settings_from_config(config: Mapping[str, Any], path: Path) -> SDSettings:
    """Settings of a diffusers AutoencoderKL from its config.json.

    Raises:
      UserError: the config needs something that this network lacks; the message names the key.
    """
    fixed = {"act_fn": "silu", "in_channels": 3, "out_channels": 3, "shift_factor": None}
    for key, value in fixed.items():
        if config.get(key, value) != value:
            raise UserError(f"{path}: {key} is {config[key]!r}; only {value!r} can be run")
    for key, kind in (("down_block_types", "Down"), ("up_block_types", "Up")):
        known = f"{kind}{'Encoder' if kind == 'Down' else 'Decoder'}Block2D"
        odd = [name for name in config.get(key, ()) if name != known]
        if odd:
            raise UserError(f"{path}: {key} has {odd[0]!r}; only {known} can be run")
    try:
        coder = SDCoderSettings(
            channels=tuple(int(c) for c in config["block_out_channels"]),
            layers_per_block=int(config.get("layers_per_block", 1)),
            groups=int(config.get("norm_num_groups", 32)),
            attend=bool(config.get("mid_block_add_attention", True)),
            quant=bool(config.get("use_quant_conv", True)),
        )
        return SDSettings(
            encoder=coder,
            decoder=replace(coder, quant=bool(config.get("use_post_quant_conv", True))),
            latent_channels=int(config.get("latent_channels", 4)),
            scaling_factor=float(config.get("scaling_factor", 0.18215)),
        )
    except KeyError as error:
        raise UserError(f"{path}: {error.args[0]} is missing") from error
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: a size is no number ({error})") from error


def light_settings(config: Mapping[str, Any], path: Path) -> SDSettings:
    """Settings of a light decoder from the `config` in its file."""
    official = {"block_out_channels": (64, 128, 256, 256), "layers_per_block": 2, **config}
    latent_channels = official.pop("in_channels", 4)
    official |= {"latent_channels": latent_channels, "use_post_quant_conv": False}
    return replace(settings_from_config(official, path), encoder=None)


def build(
    settings: SDSettings, tensors: Mapping[str, np.ndarray], source: str, ignored: tuple[str, ...]
) -> HostNetwork[SDAutoencoder]:
    """Build the network; its values stay in the files.

    Args:
      settings: the parts and their sizes.
      tensors: official tensors by name, with either naming of the attention.
      source: the file or files that they come from, for messages.
      ignored: prefixes of names that may be present but are not used.
    """
    renamed = {_new_name(name): tensor for name, tensor in tensors.items()}
    return assign(
        lambda: SDAutoencoder(settings, rngs=nnx.Rngs(0)),
        entries(settings),
        renamed,
        source,
        ignored=ignored,
    )


def light_tensors(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A light decoder's tensors under their names in the whole autoencoder."""
    return {f"decoder.{name}": tensor for name, tensor in tensors.items()}


def _new_name(name: str) -> str:
    match = _OLD_NAME.fullmatch(name)
    return match[1] + _NEW_NAMES[match[2]] + match[3] if match else name


def entries(settings: SDSettings) -> list[Entry]:
    """The table of names, in diffusers' current naming."""
    table: list[Entry] = []
    if settings.encoder is not None:
        table += _coder("encoder", settings.encoder, settings.encoder.layers_per_block)
        if settings.encoder.quant:
            table += _layer("quant_conv", ("encoder", "quant"), POINTWISE)
    if settings.decoder is not None:
        table += _coder("decoder", settings.decoder, settings.decoder.layers_per_block + 1)
        if settings.decoder.quant:
            table += _layer("post_quant_conv", ("decoder", "quant"), POINTWISE)
    return table


def _coder(part: str, settings: SDCoderSettings, blocks: int) -> Iterator[Entry]:
    down = part == "encoder"
    official_levels, resample = ("down_blocks", "down") if down else ("up_blocks", "up")
    channels = settings.channels if down else settings.channels[::-1]
    yield from _layer(f"{part}.conv_in", (part, "conv_in"), CONV)
    yield from _layer(f"{part}.conv_out", (part, "conv_out"), CONV)
    yield from _norm(f"{part}.conv_norm_out", (part, "norm_out"))
    for i, width in enumerate(channels):
        official, level = f"{part}.{official_levels}.{i}", (part, "levels", i)
        for j in range(blocks):
            changes = j == 0 and channels[max(i - 1, 0)] != width
            yield from _residual(f"{official}.resnets.{j}", (*level, "blocks", j), changes)
        if i + 1 < len(channels):
            name = f"{official}.{resample}samplers.0.conv"
            yield from _layer(name, (*level, "resample"), CONV)
    middle = f"{part}.mid_block"
    yield from _residual(f"{middle}.resnets.0", (part, "middle", "before"), False)
    yield from _residual(f"{middle}.resnets.1", (part, "middle", "after"), False)
    if settings.attend:
        official, ours = f"{middle}.attentions.0", (part, "middle", "attention")
        yield from _norm(f"{official}.group_norm", (*ours, "norm"))
        for name, own in zip(_NEW_NAMES.values(), ("query", "key", "value", "out"), strict=True):
            yield from _layer(f"{official}.{name}", (*ours, own), dense())


def _residual(official: str, ours: tuple[str | int, ...], changes: bool) -> Iterator[Entry]:
    for index in (1, 2):
        yield from _norm(f"{official}.norm{index}", (*ours, f"norm{index}"))
        yield from _layer(f"{official}.conv{index}", (*ours, f"conv{index}"), CONV)
    if changes:
        yield from _layer(f"{official}.conv_shortcut", (*ours, "shortcut"), POINTWISE)


def _layer(official: str, ours: tuple[str | int, ...], layout: Layout) -> Iterator[Entry]:
    yield Entry(f"{official}.weight", (*ours, "kernel"), layout)
    yield Entry(f"{official}.bias", (*ours, "bias"))


def _norm(official: str, ours: tuple[str | int, ...]) -> Iterator[Entry]:
    yield Entry(f"{official}.weight", (*ours, "weight"))
    yield Entry(f"{official}.bias", (*ours, "bias"))
