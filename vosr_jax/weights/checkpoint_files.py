"""Verification of checkpoints: whole, damaged or unreadable.

A damaged checkpoint has a file that is short, missing or fails its checksum. It stays damaged, so
the checkpoint before it is used. An unreadable checkpoint has a file that the system refuses to
read. It may be whole, so it is left alone and no other checkpoint replaces it.
"""

import dataclasses
from typing import Literal

from etils import epath

from vosr_jax.errors import UserError
from vosr_jax.files.checksums import Checksum, checksums_of, names_below, parse
from vosr_jax.files.paths import is_remote, reason_of

# Orbax's name part of an unfinished checkpoint's folder, and its file that marks a finished one.
UNFINISHED, COMMITTED = ".orbax-checkpoint-tmp", "commit_success.txt"
SUMS = "checksums.txt"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Result of verifying a checkpoint.

    Attributes:
      kind: "whole"; "unsummed", readable but saved before there were checksums; "damaged"; or
        "unreadable".
      reason: why it is "damaged" or "unreadable", in a few words.
    """

    kind: Literal["whole", "unsummed", "damaged", "unreadable"]
    reason: str = ""


def verify(checkpoint: epath.Path, part: int = 0, parts: int = 1) -> Verdict:
    """Read a checkpoint's files and compare them with their checksums.

    Args:
      checkpoint: folder of a step.
      part, parts: index of this process and number of processes; each reads every parts-th file.
    """
    try:
        return _verified(checkpoint, part, parts)
    except FileNotFoundError as error:
        return Verdict("damaged", f"{reason_of(error)}: {error.filename or checkpoint}")
    # The network and its clients raise errors of many kinds.
    except Exception as error:
        if isinstance(error, UserError):
            raise
        return Verdict("unreadable", reason_of(error))


def _verified(checkpoint: epath.Path, part: int, parts: int) -> Verdict:
    names = names_below(checkpoint)
    if SUMS not in names:
        if names:
            # An unreadable file shows here; Orbax would call it damaged.
            checksums_of(checkpoint, names[part::parts])
        return Verdict("unsummed")
    try:
        wanted = parse((checkpoint / SUMS).read_bytes())
    except ValueError as error:
        return Verdict("damaged", f"{SUMS}: {error}")
    missing = sorted(wanted.keys() - set(names))
    if missing:
        return Verdict("damaged", f"{missing[0]} is missing")
    own = sorted(wanted)[part::parts]
    kinds = {wanted[name].kind for name in own}
    found: dict[str, Checksum] = {}
    for kind in kinds:
        found |= checksums_of(checkpoint, [n for n in own if wanted[n].kind == kind], kind)
    for name in own:
        if found[name].size != wanted[name].size:
            sizes = f"{found[name].size} bytes instead of {wanted[name].size}"
            return Verdict("damaged", f"{name} has {sizes}")
        if found[name] != wanted[name]:
            return Verdict("damaged", f"{name} fails its checksum")
    return Verdict("whole")


def finished_steps(workdir: epath.Path) -> list[int]:
    """List the steps of a run whose checkpoints were committed, in rising order.

    Raises:
      UserError: the folder cannot be listed.
    """
    folder = epath.Path(workdir) / "checkpoints"
    try:
        return sorted(int(p.name) for p in _entries(folder) if _is_committed(p))
    except Exception as error:
        raise UserError(
            f"{folder} cannot be read ({reason_of(error)}); nothing was changed. Make it readable "
            "and run again"
        ) from error


def _entries(folder: epath.Path) -> list[epath.Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_committed(path: epath.Path) -> bool:
    if not path.name.isdigit():
        return False
    return not is_remote(path) or (path / COMMITTED).exists()


def damaged_folders(workdir: epath.Path) -> list[epath.Path]:
    """Checkpoints that were set aside."""
    entries = _entries(epath.Path(workdir) / "checkpoints")
    return sorted(path for path in entries if path.name.endswith(".damaged"))


def unfinished_folders(workdir: epath.Path) -> list[epath.Path]:
    """Folders left behind by saves that were killed."""
    entries = _entries(epath.Path(workdir) / "checkpoints")
    return sorted(
        path
        for path in entries
        if UNFINISHED in path.name
        or (is_remote(path) and path.name.isdigit() and not _is_committed(path))
    )
