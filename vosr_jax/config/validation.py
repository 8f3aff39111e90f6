"""From an ml_collections ConfigDict to a typed Config and back, with every mistake named."""

import dataclasses
import difflib
import operator
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from vosr_jax.config.schema import Config
from vosr_jax.errors import UserError
from vosr_jax.models.vgg import CHANNELS as VGG_CHANNELS


def validate(values: Mapping[str, Any]) -> Config:
    """A ConfigDict or dictionary as a typed Config.

    Args:
      values: nested settings; keys left out take their defaults.

    Returns:
      The Config.

    Raises:
      UserError: an unknown key (with the nearest known one), a wrong type, a value outside its
        choices, or settings that contradict each other.
    """
    plain = values.to_dict() if hasattr(values, "to_dict") else dict(values)
    config = _build(Config, plain, "")
    _check(config)
    return config


def get_config_dict(config: Config):
    """A Config as an ml_collections ConfigDict that accepts --config.key=value."""
    from ml_collections import config_dict

    def convert(value):
        converted = config_dict.ConfigDict()
        hints = typing.get_type_hints(type(value))
        for field in dataclasses.fields(value):
            item = getattr(value, field.name)
            if dataclasses.is_dataclass(item):
                item = convert(item)
            elif item is None:
                kind = next(a for a in typing.get_args(hints[field.name]) if a is not type(None))
                item = config_dict.placeholder(kind)
            converted[field.name] = item
        return converted

    return convert(config)


def _build(cls: type, values: Mapping[str, Any], prefix: str):
    hints = typing.get_type_hints(cls)
    for key in values:
        _require_known(key, hints, prefix)
    built = {}
    for key, value in values.items():
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                raise UserError(f"config key {prefix}{key} must be a section, not {value!r}")
            built[key] = _build(hints[key], value, f"{prefix}{key}.")
        else:
            built[key] = _typed(hints[key], value, prefix + key)
    return cls(**built)


def _require_known(key: str, hints: Mapping[str, Any], prefix: str) -> None:
    if key not in hints:
        close = difflib.get_close_matches(key, hints, 1)
        hint = f"did you mean {prefix}{close[0]}?" if close else f"known: {', '.join(hints)}"
        raise UserError(f"config has no key {prefix}{key}; {hint}")


def require_key(dotted: str) -> None:
    """Refuse a key that no config has.

    Args:
      dotted: as on the command line, e.g. "train.batch_size".

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


_POSITIVE = (
    *("model.patch_size", "model.width", "model.depth", "model.heads", "model.swiglu_multiple"),
    *("autoencoder.downscale", "encoder.size", "data.crop_size", "data.scale"),
    *("train.total_steps", "train.batch_size", "train.microbatches", "train.keep_checkpoints"),
    *("train.frozen_chunks", "train.max_skipped"),
    *("sampling.steps", "eval.crop_size", "eval.pictures", "eval.samples", "objective.n_steps"),
)
_NOT_NEGATIVE = (
    *("seed", "model.detail_width", "model.detail_blocks", "optimizer.warmup_steps"),
    *("data.workers", "data.cache_bytes", "train.log_every", "train.checkpoint_every"),
    *("train.sample_every", "train.eval_every", "encoder.block", "eval.tile_size"),
    *("train.keep_every", "train.hang_seconds", "eval.crop_border", "eval.centre_crop"),
)


def _check(config: Config) -> None:
    """Refuse contradictions, naming the keys."""
    for keys, smallest, sentence in (
        (_POSITIVE, 1, "must be positive"),
        (_NOT_NEGATIVE, 0, "must not be negative"),
    ):
        for key in keys:
            if operator.attrgetter(key)(config) < smallest:
                raise UserError(f"config: {key} {sentence}")
    c, token = config, config.downscale * config.model.patch_size
    low, high = c.guidance.weak_strength_range
    start, end = c.guidance.interval
    shares = c.objective.instant_share, c.objective.one_step_share
    rules = [
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
            c.encoder.tokens_of != "other"
            or c.train.batch_size > c.train.microbatches * c.train.frozen_chunks,
            "encoder.tokens_of=other needs another picture in the same part of the batch; set a "
            "larger train.batch_size",
        ),
        (
            0 <= low <= high,
            "guidance.weak_strength_range must be (low, high) with 0 <= low <= high",
        ),
        (0 <= start <= end <= 1, "guidance.interval must be (start, end), 0 <= start <= end <= 1"),
        (0 <= c.guidance.drop_rate <= 1, "guidance.drop_rate must lie in [0, 1]"),
        (0 <= c.data.grey_probability <= 1, "data.grey_probability must lie in [0, 1]"),
        (0 <= c.data.jitter_probability <= 1, "data.jitter_probability must lie in [0, 1]"),
        (0 <= c.data.max_bad_fraction <= 1, "data.max_bad_fraction must lie in [0, 1]"),
        (0 <= c.ema.decay < 1, "ema.decay must lie in [0, 1)"),
        (
            c.train.batch_size % c.train.microbatches == 0,
            "train.batch_size must be a multiple of train.microbatches",
        ),
        (
            c.train.batch_size % (c.train.microbatches * c.train.frozen_chunks) == 0,
            "train.batch_size must be a multiple of train.microbatches * train.frozen_chunks",
        ),
        (
            len(c.train.profile_steps) in (0, 2),
            "train.profile_steps must be empty or (first, last)",
        ),
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
        (0 < c.objective.delta_t <= 1, "objective.delta_t must lie in (0, 1]"),
        (
            c.objective.interval_alpha > 0 and c.objective.interval_beta > 0,
            "objective.interval_alpha and objective.interval_beta must be positive",
        ),
        (
            min(shares) >= 0 and sum(shares) <= 1,
            "objective.instant_share and objective.one_step_share must be shares of one whole",
        ),
        (
            not (c.distils and c.objective.perceptual_weight) or c.objective.one_step_share > 0,
            "objective.perceptual_weight acts where the interval ends at 0; "
            "set objective.one_step_share above 0",
        ),
    ]
    for holds, sentence in rules:
        if not holds:
            raise UserError(f"config: {sentence}")
