"""The frozen network around which adapters are trained: found, checked and identified."""

import dataclasses
from collections.abc import Mapping

from vosr_jax.config import Config
from vosr_jax.errors import UserError
from vosr_jax.models.lora import base_of
from vosr_jax.parameters.host import HostArray
from vosr_jax.parameters.identity import sha256_of
from vosr_jax.training.build import denoiser_blueprint
from vosr_jax.weights.opening import open_denoiser
from vosr_jax.weights.resolve import lasting_name, resolve


@dataclasses.dataclass(frozen=True)
class Base:
    """A base whose weights are still where they lie.

    Attributes:
      parameters: float32 host arrays by dotted path.
      identity: {"path": good from every folder, "name": of the model, "sha256": of its values}.
    """

    parameters: Mapping[str, HostArray]
    identity: dict[str, str]


def open_base(config: Config) -> Base | None:
    """The base of a config's adapters; None where model.lora_rank is 0 and all is trained.

    Raises:
      UserError: train.init_from is not set, is no model or one of other sizes, or is damaged.
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
    """Refuse a base of other sizes than the config's; the first parameter is named."""
    for name in sorted(wanted.keys() | given.keys()):
        ours, theirs = (tuple(s[name].shape) if name in s else None for s in (wanted, given))
        if ours != theirs:
            raise UserError(
                f"{source}: {name} is {theirs or 'missing'} there and {ours or 'missing'} by this "
                "config; take the model's own config.model"
            )


def check_base(identity: dict[str, str] | None, saved: dict[str, str] | None, where: str) -> None:
    """Refuse to go on around another base than a checkpoint's adapters were trained on.

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
