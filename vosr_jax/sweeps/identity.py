"""Check whether a trial's folder holds that trial; its whole config identifies it."""

import json
import os
from typing import TYPE_CHECKING, Any

from vosr_jax.config import Config, validate
from vosr_jax.errors import UserError
from vosr_jax.files import listing, reason_of, to_path, write_json
from vosr_jax.sweeps.trials import Trial

if TYPE_CHECKING:
    from etils import epath

# Keys that change neither a trial's weights nor its figures.
_NEUTRAL = (
    *("data.workers", "data.cache_bytes", "mesh.", "train.log_every", "train.checkpoint_every"),
    *("train.keep_", "train.sample_every", "train.eval_every", "train.hang_seconds"),
    *("train.profile_steps", "train.max_skipped"),
)
# Keys that change only how a trained network is evaluated.
_LOOKING = ("eval.", "sampling.")


def settings_of(config: Config) -> dict[str, Any]:
    """All settings that a trial's figures depend on: {dotted key: value as in JSON}."""
    plain = json.loads(json.dumps(config.to_dict()))
    optimizer = plain["optimizer"]
    if optimizer.get("decay_steps", 0) is None:
        # train.py writes down the length that it begins with.
        optimizer["decay_steps"] = config.train.total_steps
    return {k: v for k, v in _flat(plain, "").items() if not k.startswith(_NEUTRAL)}


def _flat(section: dict[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in section.items():
        name = prefix + key
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def differences(trial: Trial, workdir: str | os.PathLike) -> list[str]:
    """Differences of the training in a trial's folder from the trial: "key: there -> here" each.

    Empty if there is no training yet, or none whose config is stored.
    """
    if not has_checkpoint(trial, workdir):
        return []
    for file in (to_path(workdir) / trial.name / "config.json", _record(trial, workdir)):
        try:
            values = json.loads(file.read_text())
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            return [f"{file} cannot be read ({reason_of(error)})"]
        try:
            there, here = settings_of(validate(values)), settings_of(trial.config)
        except UserError as error:
            return [f"{file}: {error}"]
        return [
            f"{key}: {there.get(key)!r} -> {here.get(key)!r}"
            for key in sorted(there.keys() | here.keys())
            if there.get(key) != here.get(key) and not key.startswith(_LOOKING)
        ]
    return []


def has_checkpoint(trial: Trial, workdir: str | os.PathLike) -> bool:
    """Whether any step of the trial has been saved."""
    folder = to_path(workdir) / trial.name / "checkpoints"
    return any(path.name.isdigit() for path in listing(folder))


def write_record(trial: Trial, workdir: str | os.PathLike) -> None:
    """Write the trial's whole config beside its folder.

    Raises:
      UserError: it can't be written.
    """
    write_json(_record(trial, workdir), trial.config.to_dict())


def _record(trial: Trial, workdir: str | os.PathLike) -> "epath.Path":
    return to_path(workdir) / f"{trial.name}.config.json"
