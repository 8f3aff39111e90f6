"""Frozen denoisers: a one-step student's teacher, and the base that adapters are trained on.

Each is located, checked against the config and hashed. Its settings are checked before any array
is read. Checkpoints store the arrays' hash as the identity.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vosr_jax.config import Config, validate
from vosr_jax.diffusion.parameterization import Parameterization
from vosr_jax.errors import UserError
from vosr_jax.files import read_json_object
from vosr_jax.models.lightning_dit.settings import LightningDiTSettings
from vosr_jax.models.lora import base_of
from vosr_jax.parameters.lazy import HostArray, sha256_of
from vosr_jax.training.build import denoiser_blueprint
from vosr_jax.weights.official_args import config_of_args
from vosr_jax.weights.official_reader import read_args
from vosr_jax.weights.opening import open_denoiser
from vosr_jax.weights.resolve import lasting_name, resolve

_FROM_AUTOENCODER = ("kind", "downscale", "scaling_factor")
_FROM_ENCODER = ("kind", "block", "size", "weights", "tokens_of")
_FROM_OBJECTIVE = ("endpoint", "prediction", "residual_scale")


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A teacher whose weights are not loaded yet.

    Attributes:
      parameters: float32 host arrays by dotted path.
      parameterization: the meaning of its output.
      identity: {"path": as in the config, "sha256": of names, shapes and values}.
    """

    parameters: Mapping[str, HostArray]
    parameterization: Parameterization
    identity: dict[str, str]


def open_teacher(config: Config) -> Teacher | None:
    """Open the teacher that a config names, or None; its hash takes one read, piece by piece.

    Raises:
      UserError: it is not a model, does not match the config's student (the message names the
        keys), or is damaged.
    """
    if config.teacher is None:
        return None
    found = resolve(config.teacher, "teacher")
    parameterization = Parameterization()
    if found.kind == "release":
        check_official_teacher(config, found.path)
    else:
        own = validate(read_json_object(found.path / "config.json"))
        check_teacher(config, own)
        parameterization = own.parameterization()
    parameters = open_denoiser(found).network.parameters
    identity = {"path": config.teacher, "sha256": sha256_of(parameters)}
    return Teacher(parameters, parameterization, identity)


def check_teacher(config: Config, own: Config) -> None:
    """Refuse a teacher that does not match the config's student; the message names the keys.

    Args:
      config: of the student.
      own: of the teacher.
    """
    if own.model.r_embedding:
        raise UserError(
            f"teacher={config.teacher} is itself a one-step student (model.r_embedding=True); "
            "name a multi-step model"
        )
    ours, theirs = _comparable(config), _comparable(own)
    if own.guidance.kind != config.guidance.kind and config.guidance.kind != "none":
        ours["guidance.kind"], theirs["guidance.kind"] = config.guidance.kind, own.guidance.kind
    _refuse_differences(config, ours, theirs)


def check_official_teacher(config: Config, path: Path) -> None:
    """Do the check of `check_teacher` for a folder or file in the official layout."""
    args, file = read_args(path)
    settings = config_of_args(args, file)[0].model_settings()
    if settings.r_embedding:
        raise UserError(
            f"teacher={config.teacher} is itself a one-step student (auxiliary_time_cond in "
            f"{file}); name a multi-step model"
        )
    theirs = _network(settings) | {
        "autoencoder.kind": args.get("ae_type"),
        "encoder.kind": args.get("enc_type"),
        "encoder.block": (args.get("layer_dinov2b_list") or [None])[0],
        "encoder.size": args.get("dinov2_size", 448),
    }
    parameterization = dataclasses.asdict(Parameterization())
    theirs |= {f"objective.{key}": parameterization[key] for key in _FROM_OBJECTIVE[:2]}
    ours = {key: value for key, value in _comparable(config).items() if key in theirs}
    # The official list may count from the last block, and test networks have their own kinds.
    if not isinstance(theirs["encoder.block"], int) or theirs["encoder.block"] < 0:
        theirs["encoder.block"] = ours.get("encoder.block")
    if config.encoder.kind == "dinov2":
        theirs["encoder.kind"] = "dinov2"
    _refuse_differences(config, ours, theirs)


def _network(settings: LightningDiTSettings) -> dict[str, Any]:
    """Network settings that must match; grid and padding may differ."""
    free = {"latent_size", "r_embedding", "swiglu_multiple", "latent_channels", "token_width"}
    free |= {"lora_rank", "lora_alpha"}
    own = {f"model.{k}": v for k, v in dataclasses.asdict(settings).items() if k not in free}
    return own | {
        "latent channels of autoencoder.kind": settings.latent_channels,
        "token width of encoder.kind": settings.token_width,
    }


def _comparable(config: Config) -> dict[str, Any]:
    values = _network(config.model_settings())
    values["model.swiglu_multiple"] = config.model.swiglu_multiple
    sections = (
        ("autoencoder", _FROM_AUTOENCODER),
        ("encoder", _FROM_ENCODER if config.encoder.kind != "none" else ("kind",)),
        ("objective", _FROM_OBJECTIVE),
    )
    for section, keys in sections:
        values |= {f"{section}.{key}": getattr(getattr(config, section), key) for key in keys}
    return values


def _refuse_differences(config: Config, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    differing = [key for key in ours if ours[key] != theirs.get(key)]
    if differing:
        told = ", ".join(f"{key} is {theirs.get(key)!r}, here {ours[key]!r}" for key in differing)
        raise UserError(f"teacher={config.teacher} does not match this student: its {told}")


def check_identity(
    identity: dict[str, str] | None, saved: dict[str, str] | None, where: str
) -> None:
    """Refuse to resume with another teacher than the checkpoint's.

    Raises:
      UserError: the teachers' weights differ, or one of the two has no teacher.
    """
    ours, theirs = (None if i is None else i["sha256"] for i in (identity, saved))
    if ours == theirs:
        return
    told = [
        "no teacher" if i is None else f"teacher {i['path']} (sha256 {i['sha256'][:12]}…)"
        for i in (saved, identity)
    ]
    raise UserError(
        f"checkpoint {where} was distilled with {told[0]}, but this config's key teacher gives "
        f"{told[1]}; name the same weights, or choose another workdir"
    )


@dataclasses.dataclass(frozen=True)
class Base:
    """A base whose weights are not loaded yet.

    Attributes:
      parameters: float32 host arrays by dotted path.
      identity: {"path": valid from any folder, "name": of the model, "sha256": of its values}.
    """

    parameters: Mapping[str, HostArray]
    identity: dict[str, str]


def open_base(config: Config) -> Base | None:
    """Open the base of a config's adapters; None if model.lora_rank is 0 (all weights train).

    Raises:
      UserError: train.init_from is not set, is not a model, has other sizes, or is damaged.
    """
    if not config.model.lora_rank:
        return None
    if not config.train.init_from:
        raise UserError(
            f"model.lora_rank={config.model.lora_rank} trains adapters of a model; name it with "
            "train.init_from, or set model.lora_rank=0 to train all of a new one"
        )
    source = f"train.init_from={config.train.init_from}"
    opened = open_denoiser(resolve(config.train.init_from, "train.init_from"))
    parameters = opened.network.parameters
    _check(base_of(denoiser_blueprint(config).shapes), parameters, source)
    name, path = opened.name, lasting_name(config.train.init_from)
    return Base(parameters, {"path": path, "name": name, "sha256": sha256_of(parameters)})


def _check(wanted: Mapping, given: Mapping[str, HostArray], source: str) -> None:
    """Refuse a base whose sizes differ from the config's; name the first such parameter."""
    for name in sorted(wanted.keys() | given.keys()):
        ours, theirs = (tuple(s[name].shape) if name in s else None for s in (wanted, given))
        if ours != theirs:
            raise UserError(
                f"{source}: {name} is {theirs or 'missing'} there and {ours or 'missing'} by this "
                "config; take the model's own config.model"
            )


def check_base(identity: dict[str, str] | None, saved: dict[str, str] | None, where: str) -> None:
    """Refuse to resume on another base than the checkpoint's adapters were trained on.

    Raises:
      UserError: the weights differ.
    """
    if identity is None or saved is None or identity["sha256"] == saved["sha256"]:
        return
    raise UserError(
        f"checkpoint {where} holds adapters of {saved['path']} (sha256 {saved['sha256'][:12]}…), "
        f"but train.init_from={identity['path']} has other weights (sha256 "
        f"{identity['sha256'][:12]}…); name the same ones, or choose another workdir"
    )
