"""A sweep file and its trials; whether a folder holds a trial.

A sweep file is a Python file with

    CONFIG = "configs/nano.py"          what the trials have in common
    def get_sweep():                    a list of overrides, of `vosr_jax.sweeps.hyper`
        return product(sweep("model.depth", [4, 6]), sweep("seed", range(3)))

and optionally REFERENCE and COMPARISONS, which `aggregate.gather` reads to compare trials.
A trial's whole config identifies it.
"""

import dataclasses
import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from etils import epath

from vosr_jax.config import Config, validate
from vosr_jax.config.from_file import config_from_file
from vosr_jax.errors import UserError
from vosr_jax.files import listing, reason_of, to_path, write_json
from vosr_jax.sweeps.hyper import Overrides

_LONGEST = 150
# Keys that change neither a trial's weights nor its figures.
_NEUTRAL = (
    *("data.workers", "data.cache_bytes", "mesh.", "train.log_every", "train.checkpoint_every"),
    *("train.keep_", "train.sample_every", "train.eval_every", "train.hang_seconds"),
    *("train.profile_steps", "train.max_skipped", "train.executable"),
)
# Keys that change only how a trained network is evaluated.
_LOOKING = ("eval.", "sampling.")


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
      name: of its folder, made only from its own overrides, so that a sweep may grow.
      overrides: the settings that distinguish it.
      arguments: for train.py, without --workdir.
      config: the whole experiment.
    """

    name: str
    overrides: Overrides
    arguments: tuple[str, ...]
    config: Config


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep file's content.

    Attributes:
      path: of the file.
      trials: in the file's order.
      module: the file itself.
    """

    path: Path
    trials: tuple[Trial, ...]
    module: ModuleType


def load_sweep(path: str | Path, common: Sequence[str] = ()) -> Sweep:
    """Read a sweep file and check every trial's config.

    Args:
      path: of the file.
      common: "--config.key=value" for all trials.

    Raises:
      UserError: the file cannot be used, two trials are the same, or a config is wrong.
    """
    path = Path(path)
    module = _load(path)
    base, listed = getattr(module, "CONFIG", None), getattr(module, "get_sweep", None)
    if not isinstance(base, str) or listed is None:
        raise UserError(f"{path} is no sweep: it needs CONFIG, a config file, and get_sweep()")
    if not (Path(base.split(":")[0])).is_file():
        base = str(path.resolve().parents[2] / base)
    try:
        overrides = [dict(item) for item in listed()]
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: get_sweep() fails ({error}); see vosr_jax/sweeps/hyper.py") from (
            error
        )
    if not overrides:
        raise UserError(f"{path}: get_sweep() gives no trials")
    trials: dict[Any, Trial] = {}
    for item in overrides:
        name = _name(item)
        own = [f"--config.{key}={_text(value)}" for key, value in item.items()]
        config = config_from_file(base, [*common, *own])
        # Compare configs, not texts: 1 and 1.0 are one number. The same config under other keys is
        # an arm of another comparison.
        same = frozenset(item), config
        if same in trials:
            first = trials[same].name
            other = "" if name == first else f", once as {name or 'no overrides'}"
            raise UserError(
                f"{path}: get_sweep() gives the trial {first or 'without overrides'} twice{other}"
            )
        trials[same] = Trial(name, item, (f"--config={base}", *common, *own), config)
    return Sweep(path, tuple(trials.values()), module)


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise UserError(f"there is no sweep file {path}; configs/sweeps has some")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    # A sweep file is a program and may raise anything; its author has to fix it.
    except Exception as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}: {error})") from error
    return module


def _text(value: Any) -> str:
    """A value as the command line takes it; strings in a list are quoted."""
    if isinstance(value, (list, tuple)):
        items = (repr(item) if isinstance(item, str) else _text(item) for item in value)
        return f"({','.join(items)},)" if value else "()"
    return str(value)


def _name(overrides: Overrides) -> str:
    """The folder name of overrides, the same in every run."""
    text = ",".join(f"{key}={_text(value)}" for key, value in overrides.items())
    name = re.sub(r"[^\w.=,+-]+", "_", text)
    if name == text and len(name) <= _LONGEST:
        return name
    return f"{name[:_LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


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


def _record(trial: Trial, workdir: str | os.PathLike) -> epath.Path:
    return to_path(workdir) / f"{trial.name}.config.json"
