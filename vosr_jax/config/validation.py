"""Conversion of plain values or a ConfigDict to a typed Config; errors name their key."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from vosr_jax.config.ranges import check_ranges
from vosr_jax.config.schema import Config
from vosr_jax.errors import UserError
from vosr_jax.models.vgg import CHANNELS as VGG_CHANNELS

# Blocks of the released visual encoders; for other sizes the files state the number.
_BLOCKS = {"dinov2s": 12, "dinov2b": 12, "dinov2l": 24, "dinov2g": 40}


def validate(values: Mapping[str, Any]) -> Config:
    """Convert a ConfigDict or dictionary to a typed Config.

    Args:
      values: nested settings; missing keys get their defaults.

    Returns:
      The Config.

    Raises:
      UserError: an unknown key (the nearest known one is suggested), a wrong type, a value outside
        its choices, or settings that contradict each other.
    """
    plain = values.to_dict() if hasattr(values, "to_dict") else dict(values)
    config = _build(Config(), plain, "")
    _check(config)
    return config


def _build(default: Any, values: Mapping[str, Any], prefix: str):
    """Return the section `default` with some of its values replaced."""
    hints = typing.get_type_hints(type(default))
    for key in values:
        _require_known(key, hints, prefix)
    built = {}
    for key, value in values.items():
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                raise UserError(f"config key {prefix}{key} must be a section, not {value!r}")
            built[key] = _build(getattr(default, key), value, f"{prefix}{key}.")
        else:
            built[key] = _typed(hints[key], value, prefix + key)
    return dataclasses.replace(default, **built)


def _require_known(key: str, hints: Mapping[str, Any], prefix: str) -> None:
    if key not in hints:
        close = difflib.get_close_matches(key, hints, 1)
        hint = f"did you mean {prefix}{close[0]}?" if close else f"known: {', '.join(hints)}"
        raise UserError(f"config has no key {prefix}{key}; {hint}")


def require_key(dotted: str) -> None:
    """Refuse an unknown key.

    Args:
      dotted: the key as on the command line, e.g. "train.batch_size".

    Raises:
      UserError: there is no such key; the nearest known one is suggested.
    """
    section: Any = Config
    prefix = ""
    for key in dotted.split("."):
        if not dataclasses.is_dataclass(section):
            raise UserError(f"config key {dotted}: {prefix.rstrip('.')} is no section")
        hints = typing.get_type_hints(section)
        _require_known(key, hints, prefix)
        section, prefix = hints[key], f"{prefix}{key}."


def _typed(hint: Any, value: Any, key: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _typed(next(a for a in arguments if a is not type(None)), value, key)
    if origin is Literal:
        if value not in arguments:
            raise UserError(f"config key {key} is {value!r}; choose one of {', '.join(arguments)}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"config key {key} is {value!r}; it must be a list")
        if arguments[-1] is not Ellipsis and len(value) != len(arguments):
            raise UserError(f"config key {key} is {value!r}; it needs {len(arguments)} values")
        return tuple(_typed(arguments[0], item, key) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise UserError(f"config key {key} is {value!r}; it must be of type {hint.__name__}")
    return value


def _check(config: Config) -> None:
    """Refuse numbers out of their range and contradictions, naming the keys."""
    check_ranges(config)
    for rules in (_network_rules, _encoder_rules, _run_rules, _objective_rules):
        for holds, sentence in rules(config):
            if not holds:
                raise UserError(f"config: {sentence}")


def _network_rules(c: Config) -> list[tuple[bool, str]]:
    token = c.downscale * c.model.patch_size
    return [
        (c.model.width % c.model.heads == 0, "model.width must be a multiple of model.heads"),
        (c.model.width // c.model.heads % 4 == 0, "model.width / model.heads must divide by 4"),
        (
            c.data.crop_size % token == 0 and c.data.crop_size % c.data.scale == 0,
            f"data.crop_size must be a multiple of {token} (a token's side) and of data.scale",
        ),
        (
            c.eval.crop_size % token == 0 and c.eval.crop_size % c.data.scale == 0,
            f"eval.crop_size must be a multiple of {token} (a token's side) and of data.scale",
        ),
        (
            c.autoencoder.kind == "space_to_depth" or c.autoencoder.path is not None,
            f"autoencoder.path must name the weights of the {c.autoencoder.kind} autoencoder",
        ),
        (
            not c.model.pixel_width
            or (c.autoencoder.kind == "space_to_depth" and c.model.detail_width > 0),
            "model.pixel_width ends a detailer at the pixels of a rearranged picture; set "
            "autoencoder.kind=space_to_depth and model.detail_width above 0, or leave it 0",
        ),
        (
            not c.model.remove_weave or (c.model.pixel_width > 0 and c.model.patch_size % 2 == 0),
            "model.remove_weave needs a model.pixel_width above 0 and an even model.patch_size; "
            "set them, or leave it False",
        ),
        (
            not c.objective.adversarial_weight
            or (not c.distils and c.autoencoder.kind == "space_to_depth"),
            "objective.adversarial_weight is flow_matching's on pixels; set "
            "autoencoder.kind=space_to_depth and objective.name=flow_matching, or leave it 0",
        ),
        (
            not c.objective.weave_weight
            or (not c.distils and c.autoencoder.kind == "space_to_depth"),
            "objective.weave_weight is flow_matching's on pixels; set "
            "autoencoder.kind=space_to_depth and objective.name=flow_matching, or leave it 0",
        ),
        (
            not c.objective.adversarial_weight or c.data.crop_size % 4 == 0,
            "objective.adversarial_weight needs a data.crop_size that is a multiple of 4",
        ),
        (
            not c.objective.adversarial_weight
            or c.objective.adversary == "patch"
            or c.objective.perceptual_weight > 0,
            "objective.adversary=features judges the maps of the perceptual term; set "
            "objective.perceptual_weight, or adversary=patch",
        ),
        (
            not c.optimizer.muon_convolutions or c.optimizer.name == "muon",
            "optimizer.muon_convolutions needs optimizer.name=muon",
        ),
        (
            not c.distils or c.objective.penalty == "square",
            "objective.penalty is flow_matching's; distillation objectives have their own",
        ),
    ]


def _encoder_rules(c: Config) -> list[tuple[bool, str]]:
    return [
        (
            c.encoder.kind in ("none", "vgg16") or c.encoder.path is not None,
            f"encoder.path must name the weights of {c.encoder.kind}, or encoder.kind be none",
        ),
        (
            c.encoder.kind != "vgg16" or c.encoder.block < len(VGG_CHANNELS),
            f"encoder.block is one of vgg16's {len(VGG_CHANNELS)} convolutions, 0 to "
            f"{len(VGG_CHANNELS) - 1}",
        ),
        (
            c.encoder.kind == "vgg16" or c.encoder.weights == "trained",
            "encoder.weights=random is an ablation of encoder.kind=vgg16 alone",
        ),
        (
            c.encoder.tokens_of != "other" or c.train.batch_size > 1,
            "encoder.tokens_of=other needs another picture in the batch; set a larger "
            "train.batch_size",
        ),
        (
            c.encoder.block < _BLOCKS.get(c.encoder.kind, math.inf),
            f"encoder.block is {c.encoder.block}; {c.encoder.kind} has the blocks 0 to "
            f"{_BLOCKS.get(c.encoder.kind, 0) - 1}",
        ),
        (
            not c.encoder.kind.startswith("dinov2") or c.encoder.size % 14 == 0,
            f"encoder.size is {c.encoder.size}; {c.encoder.kind} needs a multiple of 14",
        ),
    ]


def _run_rules(c: Config) -> list[tuple[bool, str]]:
    low, high = c.guidance.weak_strength_range
    start, end = c.guidance.interval
    length = c.optimizer.decay_steps or c.train.total_steps
    warmup, profiled = c.optimizer.warmup(length), c.train.profile_steps
    return [
        (low <= high, "guidance.weak_strength_range must be (low, high) with low <= high"),
        (start <= end, "guidance.interval must be (start, end) with start <= end"),
        (
            c.guidance.condition_strength[1] >= 0,
            "guidance.condition_strength must be (mean, deviation) with a deviation of 0 or more",
        ),
        (
            0 not in (c.mesh.data, c.mesh.tensor),
            "mesh.data and mesh.tensor must be positive, or -1 for all devices that are left",
        ),
        (
            (c.mesh.data, c.mesh.fsdp, c.mesh.tensor).count(-1) <= 1,
            "only one of mesh.data, mesh.fsdp and mesh.tensor may be -1",
        ),
        (
            warmup <= min(length, c.train.total_steps),
            f"optimizer.warmup_steps is {warmup}, longer than the run of "
            f"train.total_steps={c.train.total_steps} or its schedule; shorten the warm-up",
        ),
        (
            c.train.batch_size % c.train.microbatches == 0,
            "train.batch_size must be a multiple of train.microbatches",
        ),
        (
            c.train.batch_size % (c.train.microbatches * c.train.frozen_chunks) == 0,
            "train.batch_size must be a multiple of train.microbatches * train.frozen_chunks",
        ),
        (
            c.train.keep_best == "none"
            or (
                c.train.eval_every > 0
                and c.train.checkpoint_every > 0
                and c.train.eval_every % c.train.checkpoint_every == 0
            ),
            "train.keep_best keeps the checkpoint of an evaluated step; set train.eval_every to a "
            "multiple of train.checkpoint_every",
        ),
        (
            not profiled or (len(profiled) == 2 and profiled[0] <= profiled[1]),
            "train.profile_steps must be empty or (first, last)",
        ),
    ]


def _objective_rules(c: Config) -> list[tuple[bool, str]]:
    shares = c.objective.instant_share, c.objective.one_step_share
    return [
        (
            c.objective.perceptual_rows <= c.train.batch_size,
            "objective.perceptual_rows must not exceed train.batch_size",
        ),
        (
            not c.objective.perceptual_weight or c.objective.perceptual_crop <= c.data.crop_size,
            "objective.perceptual_crop must not exceed data.crop_size",
        ),
        (
            not c.distils or c.model.r_embedding,
            f"objective.name={c.objective.name} needs the interval's end as an input; "
            "set model.r_embedding=True",
        ),
        (
            c.distils or not c.model.r_embedding,
            "objective.name=flow_matching gives no interval's end; set model.r_embedding=False, "
            "or choose a distillation objective",
        ),
        (
            c.distils or c.teacher is None,
            "teacher is set, but objective.name=flow_matching has none; choose rcgm, shortcut or "
            "mean_flow",
        ),
        (
            c.objective.interval_alpha > 0 and c.objective.interval_beta > 0,
            "objective.interval_alpha and objective.interval_beta must be positive",
        ),
        (
            sum(shares) <= 1,
            "objective.instant_share and objective.one_step_share must be shares of one whole",
        ),
        (
            not (c.distils and c.objective.perceptual_weight) or c.objective.one_step_share > 0,
            "objective.perceptual_weight acts where the interval ends at 0; "
            "set objective.one_step_share above 0",
        ),
    ]
