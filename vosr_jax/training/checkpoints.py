"""Checkpoints of a run: saved in the background, sealed with checksums, never silently wrong.

A checkpoint holds the train state. Beside it are the count of samples seen, from which the data
resumes, the config, the step's validation and, for a student, its teacher's identity.
"""

import os
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from vosr_jax.console import say
from vosr_jax.errors import UserError
from vosr_jax.files.paths import is_remote, reason_of, to_path
from vosr_jax.training.checkpoint_sealing import (
    SummedHandler,
    figures_of,
    manager_options,
    quiet_orbax,
    set_aside,
    temporary_path_class,
)
from vosr_jax.training.processes import worst_of_all
from vosr_jax.training.state import TrainState, as_tree, refuse_other_model, shapes_of
from vosr_jax.weights.checkpoint_files import Verdict, finished_steps, unfinished_folders, verify
from vosr_jax.weights.saved_run import (
    Progress,
    read_progress,
    refuse_unreadable,
    say_unsummed,
)

_RANKS = {"whole": 0, "unsummed": 1, "damaged": 2, "unreadable": 3}


class Checkpoints:
    """The checkpoints of a workdir, saved in the background.

    Args:
      workdir: the run's folder.
      keep: number of newest checkpoints to keep.
      keep_every: also keep those whose step is a multiple of this; 0: none.
      keep_best: validation figure whose best checkpoint is kept too, or "none".
      config: of the run, as plain values; every checkpoint holds it.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        *,
        keep: int = 3,
        keep_every: int = 0,
        keep_best: str = "none",
        config: dict[str, Any] | None = None,
    ):
        quiet_orbax()
        path = to_path(workdir)
        self.workdir = path if is_remote(path) else epath.Path(Path(path).absolute())
        self.folder = self.workdir / "checkpoints"
        self._config = config
        self._keep = keep, keep_every, keep_best
        self._judged: tuple[int, dict[str, float]] | None = None
        self._figures: dict[int, float] = {}
        self._opened: Any = None
        self._found: tuple[int, Verdict, Progress] | None = None

    @property
    def _manager(self):
        """Orbax's manager; opened only after damaged checkpoints are set aside."""
        if self._opened is None:
            keep, keep_every, keep_best = self._keep
            if keep_best != "none":
                self._figures = figures_of(self.workdir, keep_best)
            registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
            registry.add("state", ocp.args.StandardSave, SummedHandler())
            self._opened = ocp.CheckpointManager(
                self.folder,
                options=manager_options(
                    keep,
                    keep_every,
                    self._figures,
                    largest=keep_best == "eval_psnr",
                    temporary_path_class=temporary_path_class(self.folder),
                ),
                handler_registry=registry,
            )
        return self._opened

    def judge(self, step: int, figures: dict[str, float]) -> None:
        """Record a step's validation, to be stored in that step's checkpoint."""
        self._judged = step, figures

    def find(self) -> int | None:
        """The newest whole checkpoint's step, or None if the run has none yet.

        Damaged ones are reported and set aside, by all processes if one finds the damage.

        Raises:
          UserError: one cannot be read, or all are damaged.
        """
        if self._found is not None:
            return self._found[0]
        began_with_some = False
        while steps := finished_steps(self.workdir):
            began_with_some = True
            verdict, progress = self._examine(steps[-1])
            path = self.folder / str(steps[-1])
            if verdict.kind == "unreadable":
                refuse_unreadable(path, verdict.reason)
            if verdict.kind == "damaged":
                self._set_aside(steps[-1], verdict.reason)
                continue
            if verdict.kind == "unsummed":
                say_unsummed(path)
            self._found = steps[-1], verdict, progress
            return steps[-1]
        if began_with_some:
            raise UserError(
                f"{self.folder}: every checkpoint is damaged and was set aside; choose another "
                "workdir, or move the damaged ones away to begin again at step 1"
            )
        return None

    def _examine(self, step: int) -> tuple[Verdict, Progress]:
        """Verify a checkpoint on all processes; each reads its part of the files."""
        path, progress = self.folder / str(step), Progress()
        try:
            verdict = verify(path, jax.process_index(), jax.process_count())
            if verdict.kind in ("whole", "unsummed"):
                progress = read_progress(path)
        except UserError as error:
            verdict = Verdict("unreadable", str(error))
        except (ValueError, KeyError, FileNotFoundError) as error:
            verdict = Verdict("damaged", f"progress: {reason_of(error)}")
        rank, reason = worst_of_all(_RANKS[verdict.kind], verdict.reason)
        kind = next(name for name, value in _RANKS.items() if value == rank)
        return Verdict(kind, reason), progress  # type: ignore[arg-type]

    def progress(self) -> Progress:
        """The progress stored beside the newest whole state: samples seen, config, teacher.

        Raises:
          UserError: as `find`.
        """
        self.find()
        return Progress() if self._found is None else self._found[2]

    def latest(self) -> int | None:
        """The newest step that was saved or is being saved, or None."""
        return self._manager.latest_step()

    def newest_finished(self) -> int | None:
        """The newest completely saved step, or None; a save in progress does not count."""
        return max(finished_steps(self.workdir), default=None)

    def save(
        self,
        state: TrainState,
        *,
        samples_seen: int,
        teacher: dict[str, str] | None = None,
        base: dict[str, str] | None = None,
    ) -> None:
        """Start a save in the background; wait for an unfinished earlier save first.

        Args:
          state: of the last finished step.
          samples_seen: so far.
          teacher: path and sha256 of the teacher; its weights are not saved.
          base: path, name and sha256 of the adapters' base; its weights are not saved either.
        """
        step = int(state.step)
        if step == self.latest():
            return
        self._report_failure()
        judged = None
        if self._judged is not None and self._judged[0] == step:
            judged = self._judged[1]
            if self._keep[2] in judged:
                self._figures[step] = judged[self._keep[2]]
        self._judged = None
        progress = Progress(samples_seen, teacher, self._config, judged, base)
        args = ocp.args
        self._manager.save(
            step,
            args=args.Composite(
                state=args.StandardSave(as_tree(state)),
                progress=args.JsonSave(progress.to_dict()),
            ),
        )

    def _report_failure(self) -> None:
        """Report the last background save if it failed, and remove its unfinished folder."""
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        # Storage raises many kinds of errors; the run goes on and tries the next save.
        except Exception as error:
            say(f"a checkpoint could not be saved ({_reason(error)}); the next one is tried")
            self._opened = None
            self._remove_unfinished()

    def _remove_unfinished(self) -> None:
        """Remove failed saves; on a full disk their files would block the next save."""
        if jax.process_index() == 0:
            for folder in unfinished_folders(self.workdir):
                folder.rmtree(missing_ok=True)

    def restore(self, abstract_state: TrainState) -> TrainState:
        """Restore the newest whole state, sharded as in `abstract_state`.

        A damaged checkpoint is reported and set aside as `<step>.damaged`, and the one before is
        used. All processes do so if one finds the damage.

        Raises:
          UserError: it is of another model, it cannot be read, or all are damaged.
        """
        while (step := self.find()) is not None:
            self._refuse_other_model(step, abstract_state)
            state: TrainState | None = None
            sentence = ""
            try:
                state = self._restored(step, abstract_state)
            # Orbax and the storage below it raise many kinds of errors.
            except Exception as error:
                sentence = _reason(error)
            failed, sentence = worst_of_all(int(state is None), sentence)
            if state is not None and not failed:
                return state
            summed = self._found is not None and self._found[1].kind == "whole"
            if summed or "RESOURCE_EXHAUSTED" in sentence or "MemoryError" in sentence:
                raise UserError(
                    f"checkpoint {self.folder / str(step)} was not restored ({sentence}), but "
                    "nothing shows that it is damaged; nothing was changed"
                )
            self._set_aside(step, sentence)
        raise UserError(f"{self.folder} holds no checkpoint; choose the workdir of a run")

    def _restored(self, step: int, abstract_state: TrainState) -> TrainState:
        # Use the handler itself: a checkpointer would make processes wait for one that has failed.
        handler = ocp.StandardCheckpointHandler()
        args = ocp.args.StandardRestore(as_tree(abstract_state))
        return TrainState(**handler.restore(self.folder / str(step) / "state", args=args))

    def _refuse_other_model(self, step: int, abstract_state: TrainState) -> None:
        path = self.folder / str(step)
        try:
            tree = ocp.PyTreeCheckpointer().metadata(path / "state").item_metadata.tree
            parameters, optimizer = tree["parameters"], shapes_of(tree["optimizer"])
        # A checkpoint without checksums may be damaged here; `restore` then finds that.
        except Exception:
            return
        rival = tree.get("discriminator", {})
        refuse_other_model(f"checkpoint {path}", abstract_state, parameters, optimizer, rival)

    def _set_aside(self, step: int, reason: str) -> None:
        path = self.folder / str(step)
        self._found = None
        if self._opened is not None:
            self._opened.close()
            self._opened = None
        name = set_aside(path) if jax.process_index() == 0 else ""
        worst_of_all(0)
        say(
            f"checkpoint {path} is damaged ({reason}); it is kept as {name}, and the one before "
            "used"
        )

    def close(self) -> None:
        """Finish saving and stop the background work.

        Raises:
          UserError: the last checkpoint could not be saved.
        """
        if self._opened is None:
            return
        try:
            self._opened.wait_until_finished()
            self._opened.check_for_errors()
        except Exception as error:
            self._remove_unfinished()
            raise UserError(f"the last checkpoint could not be saved ({_reason(error)})") from error
        self._opened.close()


def _reason(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [""])[0][:300]
    return text if len(text) > 3 else f"{type(error).__name__} {text}".strip()
