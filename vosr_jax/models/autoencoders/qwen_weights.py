"""The Qwen-Image 2D autoencoder: official names and ours."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flax import nnx

from vosr_jax.errors import UserError
from vosr_jax.models.autoencoders.qwen import QwenAutoencoder, QwenSettings
from vosr_jax.parameters.lazy import HostNetwork
from vosr_jax.parameters.tensors import (
    CONV,
    FLAT,
    POINTWISE,
    Entry,
    Layout,
    assign,
    open_tensors,
)


def open_autoencoder(
    config: Mapping[str, Any], config_file: Path, weights: Path, parts: tuple[str, ...]
) -> tuple[HostNetwork[QwenAutoencoder], QwenSettings]:
    """Open the autoencoder from its config and its weights' file; keep only `parts`."""
    settings = _settings(config, config_file, parts)
    ignored: list[str] = []
    if "encoder" not in parts:
        ignored += ["encoder.", "quant_conv."]
    if "decoder" not in parts:
        ignored += ["decoder.", "post_quant_conv."]
    model = assign(
        lambda: QwenAutoencoder(settings, rngs=nnx.Rngs(0)),
        entries(settings),
        open_tensors(weights),
        weights,
        ignored=ignored,
    )
    return model, settings


def _settings(config: Mapping[str, Any], path: Path, parts: tuple[str, ...]) -> QwenSettings:
    for key, value in {"attn_scales": [], "non_linearity": "silu"}.items():
        if config.get(key, value) != value:
            raise UserError(f"{path}: {key} is {config[key]!r}; only {value!r} can be run")
    default = QwenSettings()
    try:
        settings = QwenSettings(
            base_width=int(config.get("base_dim", default.base_width)),
            multipliers=tuple(int(m) for m in config.get("dim_mult", default.multipliers)),
            residual_blocks=int(config.get("num_res_blocks", default.residual_blocks)),
            latent_channels=int(config.get("z_dim", default.latent_channels)),
            latents_mean=tuple(map(float, config.get("latents_mean") or default.latents_mean)),
            latents_std=tuple(map(float, config.get("latents_std") or default.latents_std)),
            parts=tuple(parts),
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: a size is no number ({error})") from error
    for key in ("latents_mean", "latents_std"):
        if len(getattr(settings, key)) != settings.latent_channels:
            raise UserError(f"{path}: {key} must have {settings.latent_channels} numbers (z_dim)")
    return settings


_GAMMA = Layout(lambda official, shape: official.reshape(shape), lambda ours: ours[:, None, None])
_FUSED = Layout(
    lambda official, shape: official.reshape(official.shape[:2]).T.reshape(shape),
    lambda ours: ours.reshape(ours.shape[0], -1).T[:, :, None, None],
)


def entries(settings: QwenSettings) -> list[Entry]:
    """The table of names."""
    table: list[Entry] = []
    if "encoder" in settings.parts:
        table += _coder("encoder")
        table += _layer("quant_conv", ("encoder", "quant"), POINTWISE)
        table += _encoder_levels(settings)
    if "decoder" in settings.parts:
        table += _coder("decoder")
        table += _layer("post_quant_conv", ("decoder", "quant"), POINTWISE)
        table += _decoder_levels(settings)
    return table


def _coder(part: str) -> Iterator[Entry]:
    """The entries whose names encoder and decoder share."""
    yield from _layer(f"{part}.conv_in", (part, "conv_in"), CONV)
    yield from _layer(f"{part}.conv_out", (part, "conv_out"), CONV)
    yield Entry(f"{part}.norm_out.gamma", (part, "norm_out", "weight"), _GAMMA)
    middle, ours = f"{part}.mid_block", (part, "middle")
    yield from _residual(f"{middle}.resnets.0", (*ours, "before"), False)
    yield from _residual(f"{middle}.resnets.1", (*ours, "after"), False)
    attention = f"{middle}.attentions.0"
    yield Entry(f"{attention}.norm.gamma", (*ours, "norm", "weight"), _GAMMA)
    yield Entry(f"{attention}.to_qkv.weight", (*ours, "qkv", "kernel"), _FUSED)
    yield Entry(f"{attention}.to_qkv.bias", (*ours, "qkv", "bias"), FLAT)
    yield from _layer(f"{attention}.proj", (*ours, "out"), POINTWISE)


def _encoder_levels(settings: QwenSettings) -> Iterator[Entry]:
    """Entries of the encoder's levels; officially blocks and downsamplers share one list."""
    widths, position = settings.widths, 0
    for i, width in enumerate(widths):
        before = widths[i - 1] if i else settings.base_width
        for j in range(settings.residual_blocks):
            ours = ("encoder", "levels", i, "blocks", j)
            yield from _residual(
                f"encoder.down_blocks.{position}", ours, j == 0 and before != width
            )
            position += 1
        if i + 1 < len(widths):
            name = f"encoder.down_blocks.{position}.resample.1"
            yield from _layer(name, ("encoder", "levels", i, "resample"), CONV)
            position += 1


def _decoder_levels(settings: QwenSettings) -> Iterator[Entry]:
    widths = settings.widths[::-1]
    for i, width in enumerate(widths):
        before = widths[i - 1] // 2 if i else widths[0]
        official, ours = f"decoder.up_blocks.{i}", ("decoder", "levels", i)
        for j in range(settings.residual_blocks + 1):
            changes = j == 0 and before != width
            yield from _residual(f"{official}.resnets.{j}", (*ours, "blocks", j), changes)
        if i + 1 < len(widths):
            name = f"{official}.upsamplers.0.resample.1"
            yield from _layer(name, (*ours, "resample"), CONV)


def _residual(official: str, ours: tuple[str | int, ...], changes: bool) -> Iterator[Entry]:
    for index in (1, 2):
        yield Entry(f"{official}.norm{index}.gamma", (*ours, f"norm{index}", "weight"), _GAMMA)
        yield from _layer(f"{official}.conv{index}", (*ours, f"conv{index}"), CONV)
    if changes:
        yield from _layer(f"{official}.conv_shortcut", (*ours, "shortcut"), POINTWISE)


def _layer(official: str, ours: tuple[str | int, ...], layout: Layout) -> Iterator[Entry]:
    yield Entry(f"{official}.weight", (*ours, "kernel"), layout)
    yield Entry(f"{official}.bias", (*ours, "bias"))
