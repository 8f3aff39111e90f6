"""Checkpoints are sealed: every file's checksum lies in the checkpoint before it counts as one.

Orbax writes a step's files into a place that is no checkpoint yet, and commits it at the end: by a
rename on a disk, by a last file in a bucket. Each process sums the files that it wrote as soon as
they are written; the first one sums the rest, puts everything into `checksums.txt` and commits.
All of this runs in Orbax's background thread. A kill at any moment leaves either no checkpoint or
one with checksums.

A damaged checkpoint leaves the others' way; which of the whole ones stay is decided here too.
"""

import asyncio
import os
import time
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
from vosr_jax.weights.checkpoint_files import COMMITTED, SUMS, UNFINISHED

_PART = "checksums.process_"


class SummedHandler(ocp.StandardCheckpointHandler):
    """Orbax's handler of arrays; each process then sums the files that it wrote alone."""

    async def async_save(self, directory, *args, **kwargs):
        """As the original; one more future sums this process's files once they are there."""
        futures = await super().async_save(directory, *args, **kwargs) or []
        if jax.process_index() == 0:
            return futures
        # Orbax waits for the futures in their order, so the files are whole by then.
        return [*futures, _SumsOfProcess(directory)]

    @classmethod
    def typestr(cls) -> str:
        """The original's name: what it writes is read without this package."""
        return ocp.StandardCheckpointHandler.typestr()


class _SumsOfProcess(ocp.future.Future):
    """Sums the files of this process when it is waited for, and notes them beside the item."""

    def __init__(self, directory: epath.Path):
        self._directory = directory

    def result(self, *_: Any, **__: Any) -> None:
        """Write the sums. How long orbax would wait goes by several names in its releases."""
        own = f"process_{jax.process_index()}"
        names = [name for name in names_below(self._directory) if own in _folders(name)]
        item = self._directory.name.partition(UNFINISHED)[0]
        sums = checksums_of(self._directory, names)
        renamed = {f"{item}/{name}": value for name, value in sums.items()}
        write_text(self._directory.parent / f"{_PART}{jax.process_index()}", render(renamed))

    def cancel(self) -> bool:
        """What was not begun yet is cancelled by not asking for it."""
        return True


def _folders(name: str) -> list[str]:
    """`ocdbt.process_1/d/…` and `array_metadatas/process_1` are of process 1."""
    return [part.removeprefix("ocdbt.") for part in name.split("/")]


def temporary_path_class(folder: epath.Path) -> type[atomicity.TemporaryPathBase]:
    """What commits checkpoints below a folder, checksums first."""
    if is_remote(folder):
        return _SealedByFile
    return _SealedByRename


class _Sealing(atomicity.TemporaryPathBase):
    """Seals a step's folder before its base commits it; an item's folder is left to the base."""

    async def finalize(self) -> None:
        store: Any = self._checkpoint_metadata_store  # type: ignore[has-type]
        if self.get_final().name.isdigit():
            if store is not None:
                # Stamped here and not by the base: later it would void the checksum.
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
    """On a disk."""


class _SealedByFile(_Sealing, atomicity.CommitFileTemporaryPath):
    """In a bucket."""


def seal(folder: epath.Path, final: epath.Path) -> None:
    """Write the checksums of everything in a folder, those of other processes as they noted them.

    Args:
      folder: of a step, whole but for Orbax's last file.
      final: what it will be called, which that last file says.
    """
    sums: dict[str, Checksum] = {}
    parts = [name for name in names_below(folder) if name.startswith(_PART)]
    for name in parts:
        sums |= parse((folder / name).read_bytes())
    rest = [name for name in names_below(folder) if name not in sums and name not in parts]
    sums |= checksums_of(folder, rest)
    # Orbax writes it after the checksums; its text is known.
    sums[COMMITTED] = checksum_of_bytes(f"Checkpoint commit was successful to {final}".encode())
    write_text(folder / SUMS, render(sums))
    for name in parts:
        (folder / name).unlink()


def set_aside(checkpoint: epath.Path) -> str:
    """Rename `<step>` to `<step>.damaged`; the new name.

    A bucket has no rename: the file that makes it a checkpoint goes first, then the store copies
    the rest within itself. Cut off in between, what is left counts as an unfinished save.
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


class _Best:
    """Preserves the checkpoint with the best figure; one without a figure is none of them.

    The figures are looked up and not taken from Orbax, which would read them from every
    checkpoint at its start and fail where one is damaged.
    """

    def __init__(self, figures: dict[int, float], largest: bool):
        self._figures, self._largest = figures, largest

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """For every checkpoint whether it is the best."""
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
    """Orbax's options: asynchronous, sealed, and what stays.

    Args:
      keep: so many of the newest.
      keep_every: those of every so manieth step; 0: none.
      figures: of judged steps; may grow while the run goes on.
      largest: whether the largest of them is the best.
      temporary_path_class: what commits a checkpoint.
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
