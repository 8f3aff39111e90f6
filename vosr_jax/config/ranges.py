"""Valid range of every number in a config; outside it a run cannot learn or diverges."""

import dataclasses
import math
import operator
from collections.abc import Iterator
from typing import Any

from vosr_jax.config.schema import Config
from vosr_jax.errors import UserError

_INFINITY = "∞"

# {range: its keys}; [ and ] include the bound, ( and ) exclude it. In a list every number must be
# in range. The values of data.degradation are checked where they are described.
_RANGES: dict[str, tuple[str, ...]] = {
    "[1, ∞)": (
        *("model.patch_size", "model.width", "model.depth", "model.heads", "model.swiglu_multiple"),
        *("model.token_hidden_ratio", "autoencoder.downscale", "encoder.size"),
        *("encoder.token_width", "objective.n_steps", "objective.perceptual_crop"),
        *("model.detail_stem_blocks", "objective.adversarial_width"),
        *("data.crop_size", "data.scale", "train.total_steps", "train.batch_size"),
        *("train.microbatches", "train.frozen_chunks", "train.keep_checkpoints"),
        *("train.max_skipped", "train.profile_steps", "sampling.steps", "eval.crop_size"),
        *("eval.pictures", "eval.samples", "eval.steps", "optimizer.decay_steps"),
    ),
    "(0, ∞)": (
        *("model.mlp_ratio", "autoencoder.scaling_factor", "objective.time_sigma"),
        *("objective.residual_scale", "objective.adaptive_offset", "optimizer.learning_rate"),
        *("optimizer.muon_learning_rate", "optimizer.epsilon", "model.lora_alpha"),
    ),
    "[0, ∞)": (
        *("model.detail_width", "model.detail_blocks", "encoder.block", "data.workers"),
        *("data.cache_bytes", "objective.perceptual_weight", "objective.perceptual_power"),
        *("objective.perceptual_rows", "objective.weak_strength", "objective.average_weight"),
        *("objective.adaptive_power", "optimizer.warmup_steps", "optimizer.weight_decay"),
        *("optimizer.max_grad_norm", "mesh.slices", "train.log_every", "train.checkpoint_every"),
        *("train.sample_every", "train.eval_every", "train.keep_every", "train.hang_seconds"),
        *("eval.tile_size", "eval.crop_border", "eval.centre_crop", "eval.weak_strengths"),
        *("guidance.weak_strength_range", "model.pixel_width", "objective.adversarial_weight"),
        *("objective.weave_weight", "model.lora_rank"),
    ),
    "[0, 1]": (
        *("data.max_bad_fraction", "guidance.drop_rate", "guidance.interval"),
        *("objective.instant_share", "objective.one_step_share", "optimizer.warmup_share"),
    ),
    "[0, 1)": ("ema.decay", "optimizer.beta1", "optimizer.beta2"),
    "(0, 1]": ("objective.delta_t", "objective.smallest_t"),
    # The generators use 32 bits of a seed, so a larger one would equal a smaller one.
    "[0, 4294967296)": ("seed",),
    # -1 means all remaining devices; the other values are checked together.
    "[-1, ∞)": ("mesh.data", "mesh.fsdp", "mesh.tensor"),
    "(-∞, ∞)": (
        *("objective.time_mu", "guidance.scale", "guidance.condition_strength"),
        *("eval.guidance_scales", "objective.interval_alpha", "objective.interval_beta"),
    ),
}


def check_ranges(config: Config) -> None:
    """Refuse a number outside its range and name its key.

    Raises:
      UserError: the first such number.
    """
    for text, keys in _RANGES.items():
        for key in keys:
            for value in _numbers(operator.attrgetter(key)(config)):
                if not _lies_in(value, text):
                    raise UserError(f"config: {key} {_sentence(text)}; it is {value}")
    for key, value in numbers_of(config):
        if not math.isfinite(value):
            raise UserError(f"config: {key} is {value}; it must be a number")


def ranged_keys() -> set[str]:
    """Keys that have a range."""
    return {key for keys in _RANGES.values() for key in keys}


def numbers_of(section: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield (dotted key, value) of every number in a config, including those in lists."""
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            yield from numbers_of(value, f"{prefix}{field.name}.")
        else:
            yield from ((prefix + field.name, number) for number in _numbers(value))


def _numbers(value: Any) -> list[float]:
    values = value if isinstance(value, tuple) else (value,)
    return [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]


def _bounds(text: str) -> tuple[float, float]:
    low, high = (part.strip().replace(_INFINITY, "inf") for part in text[1:-1].split(","))
    return float(low), float(high)


def _lies_in(value: float, text: str) -> bool:
    low, high = _bounds(text)
    # NaN is in no range, since every comparison with it is false.
    above = low <= value if text[0] == "[" else low < value
    return above and (value <= high if text[-1] == "]" else value < high)


def _sentence(text: str) -> str:
    known = {"[1, ∞)": "must be positive", "(0, ∞)": "must be positive"}
    known |= {"[0, ∞)": "must not be negative", "(-∞, ∞)": "must be a number"}
    return known.get(text, f"must lie in {text}")
