"""Conversion of the official scripts' args.json to our Config; every value is checked.

The official training writes its whole YAML config into args.json, so most keys concern training
alone. The keys here come from its four released configs, its scripts and its commands.
"""

import math
from pathlib import Path
from typing import Any, Literal

from vosr_jax.config.run_sections import DataConfig, EvalConfig, SamplingConfig
from vosr_jax.config.schema import (
    LATENT_CHANNELS,
    AutoencoderConfig,
    Config,
    EncoderConfig,
    ModelConfig,
    ObjectiveConfig,
)
from vosr_jax.config.validation import validate
from vosr_jax.diffusion.guidance import GuidanceSettings
from vosr_jax.errors import UserError
from vosr_jax.weights.model_names import AUTOENCODERS, ENCODER_FOLDER, ENCODERS, LIGHT_DECODER

# Multi-step; one-step with the interval's end r as input; one-step without r (VOSR 2.0).
KINDS = ("multi_step", "one_step", "one_step_2")
DISTILLATIONS = ("shortcut", "rcgm", "onestep")
_MULTI_STEPS = 25

# {key: known values}. The interpolations differ only in training; both give w * lq here.
_CHOICES: dict[str, tuple[str, ...]] = {
    "ae_type": tuple(LATENT_CHANNELS),
    "enc_type": tuple(ENCODERS),
    "interp_type": ("lin", "sph"),
}
_COUNTS = (
    *("resolution", "patch_size", "dim", "depth", "num_heads", "enc_dim", "encdim_ratio"),
    *("infer_steps", "dinov2_size"),
)
_NUMBERS = ("mlp_ratio", "cfg_ratio", "cfg_scale", "t_start", "t_end", "weak_cond_strength_aelq")
_SWITCHES = (
    *("use_qknorm", "use_swiglu", "use_rope", "use_rmsnorm", "wo_shift", "use_pos"),
    "auxiliary_time_cond",
)
_TEXTS = ("distill_type",)
_PATHS = ("ae_path", "lwdecoder_path")
_LISTS = ("weak_cond_strength_aelq_list", "cond_strength_aelq_list", "layer_dinov2b_list")
# Keys of training and of the official commands that change nothing here.
_WITHOUT_EFFECT = frozenset(
    "a b u_weight seed suffix config exp_name report_to logging_dir output_dir "
    "tracker_project_name train_dataset_config train_dataset_txt_paths_list "
    "train_dataset_prob_paths_list test_dataset_txt_paths_list test_dataset_prob_paths_list "
    "dataset_type shuffle_buffer dataloader_num_workers train_batch_size "
    "gradient_accumulation_steps mixed_precision use_8bit_adam learning_rate adam_beta1 "
    "adam_beta2 adam_weight_decay adam_epsilon max_grad_norm lr_scheduler lr_warmup_steps "
    "lr_num_cycles lr_power max_train_steps checkpointing_steps inference_steps train_steps "
    "use_ema ema_decay pretrained_ckpt resume_ckpt teacher_ckpt rcgm_delta_t rcgm_n_steps "
    "test_lq_dir test_gt_dir test_upscale checkpoint input_image upscale process_size "
    "align_method tile_size tile_overlap force_rerun".split()
)
_REQUIRED = (
    *("ae_type", "enc_type", "resolution", "patch_size", "mlp_ratio", "dim", "depth", "num_heads"),
    *("enc_dim", "encdim_ratio", "use_qknorm", "use_swiglu", "use_rope", "use_rmsnorm"),
    "layer_dinov2b_list",
)
# The sampler needs it for a multi-step model; for the others only training reads it.
_WEAK = "weak_cond_strength_aelq_list"


def config_of_args(
    args: dict[str, Any], file: Path, *, r_embedding: bool | None = None
) -> tuple[Config, tuple[str, ...]]:
    """Convert args.json to our settings.

    Args:
      args: content of args.json.
      file: its path, for messages.
      r_embedding: whether the weights take the interval's end r; None if they are not at hand.

    Returns:
      (the Config, with the frozen networks' paths as the official code knows them; notes, one
      sentence each: unknown keys, visual layers without effect).

    Raises:
      UserError: a key (it is named) is missing, or its value is unknown or of the wrong kind.
    """
    _check(args, file)
    kind = kind_of_args(args, file, r_embedding)
    layers, time = args["layer_dinov2b_list"], args.get("time_dist", ["uniform", 0.0, 1.0])
    resolution, ae_type = args["resolution"], args["ae_type"]
    config = Config(
        model=ModelConfig(
            patch_size=args["patch_size"],
            width=args["dim"],
            depth=args["depth"],
            heads=args["num_heads"],
            mlp_ratio=float(args["mlp_ratio"]),
            token_hidden_ratio=args["encdim_ratio"],
            r_embedding=kind == "one_step",
            qk_norm=args["use_qknorm"],
            swiglu=args["use_swiglu"],
            rotary=args["use_rope"],
            rms_norm=args["use_rmsnorm"],
        ),
        autoencoder=AutoencoderConfig(
            kind=ae_type,
            path=args.get("ae_path") or AUTOENCODERS[ae_type],
            decoder=(args.get("lwdecoder_path") or LIGHT_DECODER) if ae_type == "sd2" else None,
        ),
        encoder=EncoderConfig(
            kind=args["enc_type"],
            path=f"{ENCODER_FOLDER}/{ENCODERS[args['enc_type']]}",
            size=args.get("dinov2_size", 448),
            # A negative layer counts from the encoder's end; only its weights tell its depth.
            block=max(layers[0], 0),
            token_width=args["enc_dim"],
        ),
        objective=ObjectiveConfig(
            name=_objective(args, kind),
            time_distribution=time[0],
            time_mu=float(time[1]),
            time_sigma=float(time[2]),
        ),
        guidance=GuidanceSettings(
            kind="restoration" if kind == "multi_step" else "none",
            drop_rate=float(args.get("cfg_ratio", 0.1)),
            weak_strength_range=_weak_range(args, file, kind),
            condition_strength=_pair(args.get("cond_strength_aelq_list", [5.0, 1.0])),
            scale=float(args.get("cfg_scale", 1.0)),
            interval=(float(args.get("t_start", 0.0)), float(args.get("t_end", 1.0))),
        ),
        data=DataConfig(crop_size=resolution),
        sampling=SamplingConfig(
            steps=args.get("infer_steps") or (_MULTI_STEPS if kind == "multi_step" else 1),
            truncate=True,
        ),
        eval=EvalConfig(crop_size=resolution),
    )
    try:
        validate(config.to_dict())
    except UserError as error:
        raise UserError(f"{file} cannot be run ({error})") from error
    return config, _notes(args, file, kind)


def kind_of_args(args: dict[str, Any], file: Path, r_embedding: bool | None = None) -> str:
    """Determine which of `KINDS` a checkpoint is.

    With r among the inputs it is "one_step". auxiliary_time_cond states that if present, else the
    weights do. Without r, distill_type or infer_steps of 1 marks a "one_step_2" (VOSR 2.0's
    args.json has both); else it is "multi_step".

    Raises:
      UserError: args.json and the weights contradict each other.
    """
    distilled = bool(args.get("distill_type")) or args.get("infer_steps") == 1
    has_r = r_embedding
    if has_r is None:
        has_r = args.get("auxiliary_time_cond", bool(args.get("distill_type")))
    elif has_r != args.get("auxiliary_time_cond", has_r):
        raise UserError(
            f"{file}: auxiliary_time_cond is {args['auxiliary_time_cond']}, but the weights "
            f"{'take' if has_r else 'do not take'} the interval's end; correct the key"
        )
    return "one_step" if has_r else "one_step_2" if distilled else "multi_step"


def _objective(args: dict[str, Any], kind: str) -> Literal["flow_matching", "rcgm", "shortcut"]:
    """The objective that a student was trained with, if the config has a name for it."""
    if kind != "one_step":
        return "flow_matching"
    return "shortcut" if args.get("distill_type") == "shortcut" else "rcgm"


def _weak_range(args: dict[str, Any], file: Path, kind: str) -> tuple[float, float]:
    if _WEAK in args:
        return _pair(args[_WEAK])
    if kind == "multi_step":
        raise UserError(f"{file} lacks the key {_WEAK}, whose middle a multi-step model samples by")
    return GuidanceSettings().weak_strength_range


def _notes(args: dict[str, Any], file: Path, kind: str) -> tuple[str, ...]:
    known = {*_CHOICES, *_COUNTS, *_NUMBERS, *_SWITCHES, *_TEXTS, *_PATHS, *_LISTS}
    unknown = sorted(args.keys() - known - _WITHOUT_EFFECT - {"time_dist"})
    notes = [f"{file} has the unknown key {key}, which is ignored" for key in unknown]
    layers = args["layer_dinov2b_list"]
    if len(layers) > 1:
        notes.append(f"{file} names {len(layers)} visual layers; the official network uses one")
    distillation = args.get("distill_type")
    if distillation is not None and distillation not in DISTILLATIONS:
        notes.append(
            f"{file}: distill_type {distillation!r} is unknown (known are "
            f"{', '.join(DISTILLATIONS)}); restoring does not depend on it"
        )
    return tuple(notes)


def _check(args: dict[str, Any], file: Path) -> None:
    """Raise UserError unless every key that matters is present with a value of its kind."""
    for key in _REQUIRED:
        if key not in args:
            raise UserError(f"{file} lacks the key {key}")
    for key, choices in _CHOICES.items():
        if args.get(key) is not None or key in _REQUIRED:
            _require(args, key, file, args[key] in choices, f"known are {', '.join(choices)}")
    for key in _COUNTS:
        if key in args and not (key == "infer_steps" and args[key] is None):
            right = _is_int(args[key]) and args[key] > 0
            _require(args, key, file, right, "a positive whole number is expected")
    for key in _NUMBERS:
        if key in args:
            _require(args, key, file, _is_number(args[key]), "a number is expected")
    for key in _SWITCHES:
        if key in args:
            _require(args, key, file, isinstance(args[key], bool), "true or false is expected")
    for keys, expected in ((_PATHS, "a path is expected"), (_TEXTS, "a word is expected")):
        for key in keys:
            if args.get(key) is not None:
                _require(args, key, file, isinstance(args[key], str), expected)
    _check_lists(args, file)


def _check_lists(args: dict[str, Any], file: Path) -> None:
    for key in _LISTS:
        if key in args:
            value = args[key]
            right = isinstance(value, list) and value and all(_is_number(v) for v in value)
            _require(args, key, file, bool(right), "a list of numbers is expected")
    layers = args["layer_dinov2b_list"]
    whole = all(_is_int(v) for v in layers)
    _require(args, "layer_dinov2b_list", file, whole, "whole numbers are expected")
    for key in ("weak_cond_strength_aelq_list", "cond_strength_aelq_list"):
        if key in args:
            _require(args, key, file, len(args[key]) == 2, "two numbers are expected")
    if "time_dist" in args:
        time = args["time_dist"]
        right = isinstance(time, list) and len(time) == 3
        right = right and time[0] in ("uniform", "lognorm") and all(map(_is_number, time[1:]))
        expected = "known are ['uniform', 0, 1] and ['lognorm', mean, deviation]"
        _require(args, "time_dist", file, right, expected)


def _require(args: dict[str, Any], key: str, file: Path, right: bool, expected: str) -> None:
    if not right:
        raise UserError(f"{file}: {key} is {args[key]!r}; {expected}")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return (_is_int(value) or isinstance(value, float)) and math.isfinite(value)


def _pair(values: list[float]) -> tuple[float, float]:
    return float(values[0]), float(values[1])
