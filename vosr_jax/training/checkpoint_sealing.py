"""Sealed checkpoints: each is committed only with the checksums of all its files.

Orbax writes a step's files to a temporary place and commits it at the end: by a rename on a disk,
by a last file in a bucket. Each process checksums the files that it wrote as soon as they are
written. Process 0 checksums the rest, writes `checksums.txt` and commits. All of this runs in
Orbax's background thread. A kill at any moment leaves either no checkpoint or one with checksums.

This module also renames damaged checkpoints, decides which whole ones are kept, and sets up Orbax.
"""

import asyncio
import logging
import os
import time
import traceback
from collections.abc import Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint._src.path import atomicity
from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

from vosr_jax.files.atomic import write_text
from vosr_jax.files.checksums import (
    Checksum,
    checksum_of_bytes,
    checksums_of,
    names_below,
    parse,
    render,
)
from vosr_jax.files.paths import filesystem, is_remote
from vosr_jax.weights.checkpoint_files import COMMITTED, SUMS, UNFINISHED, finished_steps
from vosr_jax.weights.saved_run import read_progress

_PART = "checksums.process_"


class SummedHandler(ocp.StandardCheckpointHandler):
    """Orbax's array handler; each process then checksums the files that only it wrote."""

    async def async_save(self, directory, *args, **kwargs):
        """Save as the original does; one more future checksums this process's written files."""
        futures = await super().async_save(directory, *args, **kwargs) or []
        if jax.process_index() == 0:
            return futures
        # Orbax waits for the futures in order, so the files are complete by then.
        return [*futures, _SumsOfProcess(directory)]

    @classmethod
    def typestr(cls) -> str:
        """The original's name, so that checkpoints can be read without this package."""
        return ocp.StandardCheckpointHandler.typestr()


class _SumsOfProcess(ocp.future.Future):
    """Future that checksums this process's files on `result` and writes them beside the item."""

    def __init__(self, directory: epath.Path):
        self._directory = directory

    def result(self, *_: Any, **__: Any) -> None:
        """Write the sums. Orbax releases name the timeout differently, so accept any argument."""
        own = f"process_{jax.process_index()}"
        names = [name for name in names_below(self._directory) if own in _folders(name)]
        item = self._directory.name.partition(UNFINISHED)[0]
        sums = checksums_of(self._directory, names)
        renamed = {f"{item}/{name}": value for name, value in sums.items()}
        write_text(self._directory.parent / f"{_PART}{jax.process_index()}", render(renamed))

    def cancel(self) -> bool:
        """Cancel; nothing runs unless `result` is called."""
        return True


def _folders(name: str) -> list[str]:
    """Parts of a path, without "ocdbt.".

    `ocdbt.process_1/d/…` and `array_metadatas/process_1` both belong to process 1.
    """
    return [part.removeprefix("ocdbt.") for part in name.split("/")]


def temporary_path_class(folder: epath.Path) -> type[atomicity.TemporaryPathBase]:
    """The class that commits checkpoints below a folder, checksums first."""
    if is_remote(folder):
        return _SealedByFile
    return _SealedByRename


class _Sealing(atomicity.TemporaryPathBase):
    """Seal a step's folder before the base class commits it; leave an item's folder to the base."""

    async def finalize(self) -> None:
        store: Any = self._checkpoint_metadata_store  # type: ignore[has-type]
        if self.get_final().name.isdigit():
            if store is not None:
                # Write the time here: if the base wrote it later, the checksum would be wrong.
                store.wait_until_finished()
                store.update(
                    file_path=self.get() / "_CHECKPOINT_METADATA",
                    commit_timestamp_nsecs=time.time_ns(),
                )
                store.wait_until_finished()
                self._checkpoint_metadata_store = None
            await asyncio.to_thread(seal, self.get(), self.get_final())
        await super().finalize()  # type: ignore[safe-super]


class _SealedByRename(_Sealing, atomicity.AtomicRenameTemporaryPath):
    """Commit on a disk, by a rename."""


class _SealedByFile(_Sealing, atomicity.CommitFileTemporaryPath):
    """Commit in a bucket, by a last file."""


def seal(folder: epath.Path, final: epath.Path) -> None:
    """Write the checksums of all files in a folder, including those that other processes computed.

    Args:
      folder: of a step, complete except for Orbax's last file.
      final: its final path, which that last file contains.
    """
    sums: dict[str, Checksum] = {}
    parts = [name for name in names_below(folder) if name.startswith(_PART)]
    for name in parts:
        sums |= parse((folder / name).read_bytes())
    rest = [name for name in names_below(folder) if name not in sums and name not in parts]
    sums |= checksums_of(folder, rest)
    # Orbax writes this file after the checksums; its text is known.
    sums[COMMITTED] = checksum_of_bytes(f"Checkpoint commit was successful to {final}".encode())
    write_text(folder / SUMS, render(sums))
    for name in parts:
        (folder / name).unlink()


def set_aside(checkpoint: epath.Path) -> str:
    """Rename `<step>` to `<step>.damaged` and return the new name.

    A bucket has no rename. The commit file is deleted first, then the store copies the rest
    within itself. If this is interrupted, the remainder counts as an unfinished save.
    """
    target, count = checkpoint.with_name(f"{checkpoint.name}.damaged"), 1
    while target.exists():
        count += 1
        target = checkpoint.with_name(f"{checkpoint.name}-{count}.damaged")
    if not is_remote(checkpoint):
        os.rename(checkpoint, target)
        return target.name
    (checkpoint / COMMITTED).unlink(missing_ok=True)
    store = filesystem(checkpoint)
    for name in names_below(checkpoint):
        store.cp_file(str(checkpoint / name), str(target / name))
    checkpoint.rmtree(missing_ok=True)
    return target.name


def figures_of(workdir: epath.Path, key: str) -> dict[int, float]:
    """Figures of earlier validations by step; checkpoints without one are left out."""
    figures = {}
    for step in finished_steps(workdir):
        try:
            judged = read_progress(workdir / "checkpoints" / str(step)).judged
            figures[step] = float((judged or {})[key])
        # The checkpoint is old or damaged; only a restored one has to be whole.
        except Exception:
            continue
    return figures


class _Best:
    """Keep the checkpoint with the best figure; one without a figure never counts.

    The figures are passed in. Orbax would read them from every checkpoint at its start and fail
    at a damaged one.
    """

    def __init__(self, figures: dict[int, float], largest: bool):
        self._figures, self._largest = figures, largest

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """For every checkpoint, whether it is the best."""
        del context
        judged = [info.step for info in checkpoints if info.step in self._figures]
        choose = max if self._largest else min
        best = choose(judged, key=self._figures.__getitem__) if judged else None
        return [info.step == best for info in checkpoints]


def manager_options(
    keep: int,
    keep_every: int,
    figures: dict[int, float],
    *,
    largest: bool,
    temporary_path_class: type,
) -> ocp.CheckpointManagerOptions:
    """Orbax's options: asynchronous saves, sealing, and which checkpoints are kept.

    Args:
      keep: number of newest checkpoints to keep.
      keep_every: also keep those whose step is a multiple of this; 0: none.
      figures: by evaluated step; may grow while the run goes on.
      largest: whether the largest figure is the best.
      temporary_path_class: the class that commits a checkpoint.
    """
    kept: list = [policies.LatestN(keep), _Best(figures, largest)]
    if keep_every:
        kept.append(policies.EveryNSteps(keep_every))
    return ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(kept),
        enable_async_checkpointing=True,
        create=True,
        temporary_path_class=temporary_path_class,
    )


def quiet_orbax() -> None:
    """Silence Orbax's tracebacks; `Checkpoints` reports a failed save in one line."""
    for name in ("absl", "asyncio"):
        logger = logging.getLogger(name)
        if _not_orbax not in logger.filters:
            logger.addFilter(_not_orbax)


def _not_orbax(record: logging.LogRecord) -> bool:
    """Whether neither a log record nor its exception comes from Orbax."""
    places = [record.pathname]
    if record.exc_info and record.exc_info[2] is not None:
        places += [frame.filename for frame in traceback.extract_tb(record.exc_info[2])]
    return not any(f"{os.sep}orbax{os.sep}" in place for place in places)
