"""A run's folder: its config, and a lock against other runs."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import jax
from etils import epath

from vosr_jax.config import Config, OptimizerConfig
from vosr_jax.console import say
from vosr_jax.errors import UserError
from vosr_jax.files.atomic import remove_parts, write_json
from vosr_jax.files.paths import is_remote, reason_of, to_path, writing
from vosr_jax.training.processes import refused_together
from vosr_jax.training.run_lock import NAME as LOCK
from vosr_jax.training.run_lock import RunLock
from vosr_jax.weights.checkpoint_files import damaged_folders, finished_steps, unfinished_folders
from vosr_jax.weights.saved_run import CONFIG, read_config

# Keys that may change on resume: length, evaluation, data workers and mesh (and all `*_every`).
_FREE = (
    "train.total_steps",
    "eval.",
    "data.workers",
    "data.cache_bytes",
    "mesh.",
    "train.executable",
)
_SPANNING = ("schedule", "warmup_steps", "warmup_share")


class Workdir:
    """A run's folder, locked against other runs until it is closed.

    Attributes:
      path: the folder: a Path on a disk, an epath.Path in a bucket.
      config: the run's settings, with those that the folder's config adds.
    """

    def __init__(self, path: epath.Path, config: Config, lock: RunLock | None):
        self.path = path if is_remote(path) else Path(path)
        self.config = config
        self._lock = lock

    def keep_config(self) -> None:
        """Write the config to the folder, once everything that it names has proved usable.

        Raises:
          UserError: config.json cannot be written.
        """
        if jax.process_index() == 0:
            write_json(self.path / CONFIG, self.config.to_dict())

    def close(self) -> None:
        """Release the folder."""
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> "Workdir":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def open_workdir(workdir: str | os.PathLike, config: Config, *, allow_changes: bool) -> Workdir:
    """Make or recognise a workdir and lock it; of several processes only process 0 does.

    A config.json that checkpoints depend on stays as it is until `keep_config`.

    Args:
      workdir: a folder, or an address in a bucket.
      config: this run's settings.
      allow_changes: accept a config that differs from the folder's.

    Raises:
      UserError: the folder cannot be written, holds something else, another config or another
        run, or has only damaged checkpoints.
    """
    path = to_path(workdir)
    if not is_remote(path):
        path = epath.Path(os.path.abspath(path))
    held: list[Workdir] = []
    try:
        return refused_together(lambda: _opened(path, config, allow_changes, held))
    except BaseException:
        # Also if another process was refused.
        for place in held:
            place.close()
        raise


def _opened(path: epath.Path, config: Config, allow_changes: bool, held: list[Workdir]) -> Workdir:
    """Open the workdir; `held` gets it once it is locked, even if it is refused afterwards."""
    if jax.process_index():
        # The folder exists already, or process 0 will make it from this same config.
        before = _config_before(path) if finished_steps(path) else None
        return Workdir(path, _with_decay_steps(config, before), None)
    _make(path)
    place = Workdir(path, config, RunLock(path))
    held.append(place)
    _remove_left_overs(path)
    steps = finished_steps(path)
    before = _config_before(path) if steps else None
    set_aside = damaged_folders(path)
    if set_aside and not steps:
        names = ", ".join(folder.name for folder in set_aside)
        raise UserError(
            f"{path}/checkpoints holds damaged checkpoints alone ({names}); choose another "
            "workdir, or move them away to begin again at step 1"
        )
    place.config = _with_decay_steps(config, before)
    if before is not None:
        _compare(path, before, config, place.config, allow_changes)
    else:
        # Without a checkpoint there is nothing to protect, and a wrong path may be corrected.
        place.keep_config()
    return place


def _make(path: epath.Path) -> None:
    """Make the folder, or check that it is a run's; write nothing else."""
    try:
        with writing(path):
            if not is_remote(path):
                path.mkdir(parents=True, exist_ok=True)
                if not os.access(path, os.W_OK):
                    raise PermissionError("no permission to write")
            entries = {entry.name for entry in path.iterdir()} if path.exists() else set()
    except UserError as error:
        if is_remote(path):
            raise
        reason = reason_of(error.__cause__ or error)
        raise UserError(f"workdir {path} cannot be written ({reason}); choose another") from error
    if entries - {LOCK} and CONFIG not in entries:
        raise UserError(
            f"workdir {path} is not empty and holds no {CONFIG} of a run; choose another folder"
        )


def _remove_left_overs(path: epath.Path) -> None:
    """Remove what killed writers left; the lock shows that none of them is alive."""
    folders = unfinished_folders(path)
    for folder in folders:
        folder.rmtree(missing_ok=True)
    if folders:
        names = ", ".join(folder.name for folder in folders)
        say(f"{path}/checkpoints: removed what unfinished saves have left ({names})")
    for name in (CONFIG, "goodput.json"):
        remove_parts(path / name)


def _config_before(path: epath.Path) -> dict[str, Any] | None:
    return read_config(path) if (path / CONFIG).exists() else None


def _with_decay_steps(config: Config, before: dict[str, Any] | None) -> Config:
    """The config with its schedule's length: as given, else as the run began."""
    o = config.optimizer
    if not o.spans_the_run or o.decay_steps is not None:
        return config
    steps = config.train.total_steps
    old = (before or {}).get("optimizer", {})
    if before and _spans(old) and old.get("schedule") == o.schedule:
        steps = old.get("decay_steps") or before["train"]["total_steps"]
    return dataclasses.replace(config, optimizer=dataclasses.replace(o, decay_steps=steps))


def _spans(optimizer: dict[str, Any]) -> bool:
    """Whether the learning rate of a stored config depends on the length of its run."""
    given = {key: optimizer[key] for key in _SPANNING if key in optimizer}
    return OptimizerConfig(**given).spans_the_run


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def _compare(
    path: epath.Path, before: dict[str, Any], asked: Config, config: Config, allow_changes: bool
) -> None:
    """Refuse or report differences from the folder's config."""
    plain = json.loads(json.dumps(Config().to_dict()))
    # A key that is new in this version had its default value before.
    old = _flat(plain) | _flat(before)
    now = _flat(json.loads(json.dumps(config.to_dict())))
    if _spans(before["optimizer"]) and old["optimizer.decay_steps"] is None:
        old["optimizer.decay_steps"] = old["train.total_steps"]
    if any(now[f"optimizer.{key}"] != old[f"optimizer.{key}"] for key in _SPANNING):
        # The length follows from these keys, so report only them.
        old["optimizer.decay_steps"] = now["optimizer.decay_steps"]
    differing = [
        key
        for key in sorted(old.keys() | now.keys())
        if old.get(key) != now.get(key) and not key.startswith(_FREE) and not key.endswith("_every")
    ]
    if differing:
        changes = ", ".join(f"{k}: {old.get(k)!r} -> {now.get(k)!r}" for k in differing)
        if not allow_changes:
            raise UserError(
                f"workdir {path} was begun with another config ({changes}); "
                "choose another workdir, or pass --allow_config_changes"
            )
        say(f"config changed: {changes}")
    total, decay = config.train.total_steps, config.optimizer.decay_steps
    if asked.optimizer.decay_steps is None and decay is not None and decay != total:
        say(
            f"train.total_steps is {total}, but the {config.optimizer.schedule} schedule ends at "
            f"step {decay}, as the run began (optimizer.decay_steps); to change that pass "
            f"--config.optimizer.decay_steps={total} --allow_config_changes"
        )
