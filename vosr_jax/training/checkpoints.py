"""Checkpoints and the workdir: asynchronous, atomic, and never somebody else's.

A checkpoint is the train state and nothing more; the data position is step * batch size. Beside
it lie the step's config, the count of samples seen and, where a student learns, which teacher.
"""

import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vosr_jax.errors import UserError
from vosr_jax.models.lightning_dit import LightningDiT
from vosr_jax.training.log import say
from vosr_jax.training.state import TrainState


def open_workdir(workdir: str | Path, config: dict[str, Any], *, allow_changes: bool) -> Path:
    """Make or recognise a workdir; its config.json is this run's.

    Args:
      workdir: the folder.
      config: this run's settings, plain.
      allow_changes: go on with a config that differs from the folder's.

    Raises:
      UserError: the folder can't be written, holds something else, or another config; or it is
        an address, which would become a folder of this machine alone.
    """
    if "://" in str(workdir):
        raise UserError(
            f"workdir {workdir} is an address; mount it (gcsfuse for a bucket) and name the folder"
        )
    path = Path(workdir)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError("no permission to write")
    except OSError as error:
        raise UserError(f"workdir {path} cannot be written ({error}); choose another") from error
    file = path / "config.json"
    # One process judges and writes; the others would meet the folder half made.
    if jax.process_index():
        return path
    if file.exists():
        # Until there is a checkpoint there is nothing to protect, and a wrong path to correct.
        if _finished_steps(path):
            _compare(file, config, allow_changes)
    elif any(path.iterdir()):
        raise UserError(
            f"workdir {path} is not empty and holds no config.json of a run; choose another folder"
        )
    write_json(file, config)
    return path


def write_json(path: Path, content: Any) -> None:
    """Write a json file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)


def read_config(workdir: str | Path) -> dict[str, Any]:
    """The config.json of a workdir.

    Raises:
      UserError: there is none, or it is damaged.
    """
    file = Path(workdir) / "config.json"
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}); is {workdir} a workdir?") from error


def _finished_steps(workdir: str | Path) -> list[int]:
    """Steps whose checkpoints are whole; orbax gives a name of digits to those alone."""
    folder = Path(workdir).absolute() / "checkpoints"
    return [int(p.name) for p in folder.glob("*") if p.name.isdigit()] if folder.is_dir() else []


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def _compare(file: Path, config: dict[str, Any], allow_changes: bool) -> None:
    before = _flat(read_config(file.parent))
    now = _flat(json.loads(json.dumps(config)))
    # A run may be lengthened, and look at itself as often as it likes.
    free = ("train.total_steps", "eval.", "data.workers", "data.cache_bytes", "mesh.")
    differing = [
        key
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
        and not key.startswith(free)
        and not key.endswith("_every")
    ]
    if not differing:
        return
    changes = ", ".join(f"{k}: {before.get(k)!r} -> {now.get(k)!r}" for k in differing)
    if not allow_changes:
        raise UserError(
            f"workdir {file.parent} was begun with another config ({changes}); "
            "choose another workdir, or pass --allow_config_changes"
        )
    say(f"config changed: {changes}")


class Checkpoints:
    """The checkpoints of a workdir, saved in the background.

    Args:
      workdir: the run's folder.
      keep: how many of the newest stay.
      keep_every: those of every so manieth step stay too; 0: none.
      keep_best: key of the validation whose best checkpoint stays too, or "none".

    Attributes:
      judged: the latest validation; saved with the next checkpoint.
    """

    def __init__(
        self, workdir: str | Path, *, keep: int = 3, keep_every: int = 0, keep_best: str = "none"
    ):
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

        self.folder = Path(workdir).absolute() / "checkpoints"
        self.judged: dict[str, float] | None = None
        kept: list = [policies.LatestN(keep)]
        if keep_every:
            kept.append(policies.EveryNSteps(keep_every))
        if keep_best != "none":
            kept.append(
                policies.BestN(
                    get_metric_fn=lambda judged: judged[keep_best],
                    reverse=keep_best != "eval_psnr",
                    n=1,
                    keep_checkpoints_without_metrics=False,
                )
            )
        self._options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(kept),
            enable_async_checkpointing=True,
            create=True,
        )
        self._ocp = ocp
        self._manager = ocp.CheckpointManager(self.folder, options=self._options)

    def latest(self) -> int | None:
        """The newest finished step, or None."""
        return self._manager.latest_step()

    def save(
        self, state: TrainState, *, samples_seen: int, teacher: dict[str, str] | None = None
    ) -> None:
        """Start saving in the background; an unfinished earlier save is waited for first.

        Args:
          state: of the last finished step.
          samples_seen: so far.
          teacher: path and sha256 of the teacher; its weights are not saved.
        """
        step = int(state.step)
        if step == self.latest():
            return
        self._report_failure()
        args = self._ocp.args
        self._manager.save(
            step,
            args=args.Composite(
                state=args.StandardSave(_as_tree(state)),
                progress=args.JsonSave({"samples_seen": samples_seen, "teacher": teacher}),
            ),
            metrics=self.judged,
        )
        self.judged = None

    def _report_failure(self) -> None:
        """Say that the last background save failed; its half-made folder is no checkpoint."""
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        # Whatever the storage raises: the run goes on, and so does the next save.
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            say(f"a checkpoint could not be saved ({reason}); the next one is tried")
            self._manager = self._ocp.CheckpointManager(self.folder, options=self._options)

    def teacher(self) -> dict[str, str] | None:
        """Path and sha256 of the teacher that the newest checkpoint was made with, or None."""
        return _read_progress(self.folder / str(self.latest())).get("teacher")

    def restore(self, abstract_state: TrainState) -> TrainState:
        """The newest whole state, laid out as `abstract_state`'s shardings say.

        A damaged checkpoint is named, set aside as `<step>.damaged`, and the one before is taken;
        of several processes all do so where one cannot read its part.

        Raises:
          UserError: it is of another model, or all are damaged.
        """
        while (step := self.latest()) is not None:
            self._refuse_other_model(step, abstract_state)
            state: TrainState | None = None
            failure: Exception | None = None
            try:
                state = self._restored(step, abstract_state)
            # Orbax and the storage below raise many kinds for a file that is short or changed.
            except Exception as error:
                failure = error
            damaged = _anywhere(failure is not None)
            if state is not None and not damaged:
                return state
            self._set_aside(step, failure)
        raise UserError(f"{self.folder}: every checkpoint is damaged; begin in another workdir")

    def _restored(self, step: int, abstract_state: TrainState) -> TrainState:
        # The handler itself: a checkpointer would let the processes wait for one that has failed.
        handler = self._ocp.StandardCheckpointHandler()
        args = self._ocp.args.StandardRestore(_as_tree(abstract_state))
        return TrainState(**handler.restore(self.folder / str(step) / "state", args=args))

    def _refuse_other_model(self, step: int, abstract_state: TrainState) -> None:
        path = self.folder / str(step) / "state"
        try:
            tree = self._ocp.PyTreeCheckpointer().metadata(path).item_metadata.tree
            found, optimizer = tree["parameters"], _shapes(tree["optimizer"])
        # Unreadable: what `restore` then finds damaged.
        except Exception:
            return
        for name, wanted in abstract_state.parameters.items():
            shape = tuple(found[name].shape) if name in found else None
            if shape != wanted.shape:
                raise UserError(
                    f"checkpoint {self.folder / str(step)} is of another model: {name} should be "
                    f"{wanted.shape} and is {shape or 'missing'}; choose another workdir"
                )
        extra = sorted(found.keys() - abstract_state.parameters.keys())
        if extra:
            raise UserError(
                f"checkpoint {self.folder / str(step)} is of another model: it has {extra[0]}"
            )
        if optimizer != _shapes(abstract_state.optimizer):
            raise UserError(
                f"checkpoint {self.folder / str(step)} is of another optimizer than "
                "optimizer.name's; choose another workdir"
            )

    def _set_aside(self, step: int, error: Exception | None) -> None:
        path = self.folder / str(step)
        reason = error or RuntimeError("another process cannot read its part")
        say(f"{_damaged(path, reason)}; it is kept as {path.name}.damaged, and the one before used")
        self._manager.close()
        if jax.process_index() == 0:
            path.rename(path.with_name(f"{path.name}.damaged"))
        _anywhere(False)
        self._manager = self._ocp.CheckpointManager(self.folder, options=self._options)

    def close(self) -> None:
        """Finish saving and stop the background work.

        Raises:
          UserError: the last checkpoint could not be saved.
        """
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise UserError(f"the last checkpoint could not be saved ({reason})") from error
        self._manager.close()


def _anywhere(told: bool) -> bool:
    """Whether any process says so; all wait for all."""
    if jax.process_count() == 1:
        return told
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.array(told)).any())


def _shapes(tree: Any) -> list[tuple[int, ...]]:
    return sorted(tuple(leaf.shape) for leaf in jax.tree.leaves(tree))


def _damaged(path: Path, error: Exception) -> UserError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return UserError(f"checkpoint {path} is damaged ({reason})")


def _read_progress(checkpoint: Path) -> dict[str, Any]:
    file = checkpoint / "progress" / "metadata"
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"checkpoint {checkpoint} is damaged ({error})") from error


def teacher_of(workdir: str | Path) -> dict[str, str] | None:
    """Path and sha256 of the teacher of a run's newest checkpoint; None without one."""
    steps = _finished_steps(workdir)
    if not steps:
        return None
    return _read_progress(Path(workdir) / "checkpoints" / str(max(steps))).get("teacher")


def _as_tree(state: TrainState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in state.__dataclass_fields__}


def load_ema(workdir: str | Path) -> tuple[dict[str, Any], int, dict[str, np.ndarray]]:
    """The newest EMA weights of a run, on the host.

    Returns:
      (config, step, {dotted path: float32 array}).

    Raises:
      UserError: the folder is no workdir, has no finished checkpoint, or a damaged one.
    """
    import orbax.checkpoint as ocp

    config = read_config(workdir)
    steps = _finished_steps(workdir)
    if not steps:
        raise UserError(f"{workdir} has no checkpoint yet; train further, or name another model")
    step = max(steps)
    handler = ocp.PyTreeCheckpointer()
    path = Path(workdir).absolute() / "checkpoints" / str(step) / "state"
    try:
        metadata = handler.metadata(path).item_metadata.tree["ema"]
        wanted = {name: np.empty(m.shape, m.dtype) for name, m in metadata.items()}
        restore_args = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in wanted}
        restored = handler.restore(
            path,
            args=ocp.args.PyTreeRestore(
                item={"ema": wanted}, restore_args={"ema": restore_args}, partial_restore=True
            ),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise UserError(f"checkpoint {path.parent} is damaged ({reason})") from error
    return config, step, restored["ema"]


def load_ema_export(workdir: str | Path, **options) -> tuple[dict[str, Any], LightningDiT]:
    """The newest EMA of a run as a network.

    Args:
      workdir: of train.py.
      **options: `dtype` and `remat` of `LightningDiT`.

    Returns:
      (config, network in float32).

    Raises:
      UserError: as `load_ema`, or the checkpoint is not the config's network's.
    """
    from vosr_jax.config import validate
    from vosr_jax.weights.export import build_denoiser

    config, step, ema = load_ema(workdir)
    source = f"{workdir}/checkpoints/{step}"
    return config, build_denoiser(validate(config).model_settings(), ema, source, **options)
