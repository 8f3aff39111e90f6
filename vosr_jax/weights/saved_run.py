"""Reading a run's newest whole checkpoint from another program, without changing anything."""

import dataclasses
import importlib.util
import json
import os
from typing import Any

import numpy as np
from etils import epath

from vosr_jax.console import say
from vosr_jax.errors import UserError
from vosr_jax.files.paths import is_remote, reason_of, to_path
from vosr_jax.version import __version__
from vosr_jax.weights.checkpoint_files import Verdict, damaged_folders, finished_steps, verify

CONFIG = "config.json"


@dataclasses.dataclass(frozen=True)
class Progress:
    """Facts saved beside a checkpoint's state.

    Attributes:
      samples_seen: number of samples seen; the data continues there.
      teacher: path and sha256 of the teacher, or None.
      config: the run's config at that time; None in older checkpoints, which lack it.
      judged: validation result of this very step, or None.
      base: path, name and sha256 of the network that the adapters belong to, or None.
    """

    samples_seen: int = 0
    teacher: dict[str, str] | None = None
    config: dict[str, Any] | None = None
    judged: dict[str, float] | None = None
    base: dict[str, str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def read_config(workdir: str | os.PathLike) -> dict[str, Any]:
    """The config.json of a workdir.

    Raises:
      UserError: there is none, or it is damaged.
    """
    file = to_path(workdir) / CONFIG
    try:
        return json.loads(file.read_text())
    # The network and its clients raise errors of many kinds.
    except Exception as error:
        reason = reason_of(error)
        raise UserError(f"{file} cannot be read ({reason}); is {workdir} a workdir?") from error


def read_progress(checkpoint: epath.Path) -> Progress:
    """Read the facts saved beside a checkpoint's state.

    Raises:
      ValueError, KeyError, OSError: it is damaged or cannot be read.
    """
    content = json.loads((checkpoint / "progress" / "metadata").read_text())
    return Progress(
        int(content["samples_seen"]),
        content.get("teacher"),
        content.get("config"),
        content.get("judged"),
        content.get("base"),
    )


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """The newest whole checkpoint of a run.

    Attributes:
      config: the config that the checkpoint was made with.
      step: finished updates.
      progress: samples seen, teacher and the like.
      ema: {dotted path: float32 array}; the adapters alone if the run trains adapters.
    """

    config: dict[str, Any]
    step: int
    progress: Progress
    ema: dict[str, np.ndarray]


def refuse_unreadable(checkpoint: epath.Path, reason: str) -> None:
    """Refuse a checkpoint that may be whole but cannot be read.

    Raises:
      UserError: always.
    """
    raise UserError(
        f"checkpoint {checkpoint} cannot be read ({reason}); nothing was changed. Make it readable "
        "and run again"
    )


def say_unsummed(checkpoint: epath.Path) -> None:
    """Say that a checkpoint has no checksums to verify it."""
    say(f"checkpoint {checkpoint} is from before checkpoints had checksums; it is used unverified")


def load_run(workdir: str | os.PathLike) -> SavedRun:
    """Load a run's newest averaged weights to the host after verifying the checkpoint's files.

    A damaged checkpoint is named and the one before it is used. Nothing is renamed, because the run
    may still be active.

    Raises:
      UserError: the folder is not a workdir, has no whole checkpoint or one that cannot be read,
        or the training packages are missing.
    """
    path = to_path(workdir)
    if not is_remote(path):
        path = epath.Path(os.path.abspath(path))
    config = read_config(path)
    _require_orbax(workdir)
    steps = finished_steps(path)
    damaged = len(damaged_folders(path))
    for step in reversed(steps):
        checkpoint = path / "checkpoints" / str(step)
        found = _load(checkpoint)
        if isinstance(found, Verdict):
            # An active run may have removed it meanwhile.
            if checkpoint.exists():
                damaged += 1
                say(f"checkpoint {checkpoint} is damaged ({found.reason}); the one before is used")
            continue
        progress, ema = found
        return SavedRun(progress.config or config, step, progress, ema)
    if damaged:
        raise UserError(f"{path}: every checkpoint is damaged; train further, or use a copy")
    raise UserError(f"{workdir} has no checkpoint yet; train further, or name another model")


def _require_orbax(workdir: str | os.PathLike) -> None:
    if importlib.util.find_spec("orbax") is None:
        raise UserError(
            f"{workdir} is a workdir, whose checkpoints need the training packages: "
            "pip install 'vosr_jax[train]', or write an export with `vosr convert`"
        )


def _load(checkpoint: epath.Path) -> tuple[Progress, dict[str, np.ndarray]] | Verdict:
    """Load (progress, EMA), or a verdict of how the checkpoint is damaged."""
    verdict = verify(checkpoint)
    if verdict.kind == "unreadable":
        refuse_unreadable(checkpoint, verdict.reason)
    if verdict.kind == "damaged":
        return verdict
    if verdict.kind == "unsummed":
        say_unsummed(checkpoint)
    try:
        return read_progress(checkpoint), _restored_ema(checkpoint / "state")
    # Orbax and the storage below raise errors of many kinds.
    except Exception as error:
        if verdict.kind == "unsummed" and not isinstance(error, MemoryError):
            return Verdict("damaged", reason_of(error))
        raise UserError(
            f"checkpoint {checkpoint} was not restored ({reason_of(error)}), but nothing shows "
            "that it is damaged"
        ) from error


def _restored_ema(path: epath.Path) -> dict[str, np.ndarray]:
    # A training package; upscaling must work without it.
    import orbax.checkpoint as ocp

    handler = ocp.PyTreeCheckpointer()
    metadata = handler.metadata(path).item_metadata.tree["ema"]
    wanted = {name: np.empty(m.shape, m.dtype) for name, m in metadata.items()}
    restore_args = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in wanted}
    restored = handler.restore(
        path,
        args=ocp.args.PyTreeRestore(
            item={"ema": wanted}, restore_args={"ema": restore_args}, partial_restore=True
        ),
    )
    return restored["ema"]


def facts_of(run: SavedRun) -> dict[str, Any]:
    """Content of provenance.json for weights that come from a run."""
    facts = {
        "vosr_jax": __version__,
        "step": run.step,
        "samples_seen": run.progress.samples_seen,
        "parameters": int(sum(array.size for array in run.ema.values())),
    }
    if run.progress.teacher is not None:
        facts["teacher_sha256"] = run.progress.teacher["sha256"]
    return facts


def load_ema(workdir: str | os.PathLike) -> tuple[dict[str, Any], int, dict[str, np.ndarray]]:
    """Load a run's newest EMA weights to the host; see `load_run`.

    Returns:
      (config, step, {dotted path: float32 array}).

    Raises:
      UserError: as `load_run`.
    """
    run = load_run(workdir)
    return run.config, run.step, run.ema


def teacher_of(workdir: str | os.PathLike) -> dict[str, str] | None:
    """Read the teacher's path and sha256 from a run's newest whole checkpoint; None without one.

    Raises:
      UserError: as `load_run`.
    """
    return load_run(workdir).progress.teacher if finished_steps(to_path(workdir)) else None
