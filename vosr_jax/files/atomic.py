"""Atomic writes: a file or folder appears complete or not at all.

On a disk: a temporary file in the same folder, fsync, rename. An object store has no rename; there
it is one upload, which the store shows only once it is complete. It has no folders to rename
either: a folder's files are uploaded when all are made. Those that readers look for first
(config.json, manifest.json, args.json) come last.

`Attempts` is for writes that must not end a run: a failure costs one line in the log.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vosr_jax.errors import UserError
from vosr_jax.files.paths import filesystem, is_remote, listing, reading, reason_of, writing

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
# Files of a folder that are uploaded last, in this order.
_LAST = ("args.json", "config.json", "manifest.json")


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text as UTF-8 atomically; missing folders are created.

    Raises:
      UserError: it cannot be written; what was there before stays.
    """
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write plain values as json atomically; missing folders are created.

    Raises:
      UserError: it cannot be written; what was there before stays.
    """
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Write bytes atomically; missing folders are created.

    Raises:
      UserError: it cannot be written; what was there before stays.
    """
    if is_remote(path):
        with writing(path):
            filesystem(path).pipe_file(os.fspath(path), data)
        return
    with whole_file(path) as part:
        part.write_bytes(data)


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a local file to write; it replaces the target if the block ends without an error.

    For an address the file is in the folder for temporary files and is uploaded at the end.

    Yields:
      The path to write to; there is no file yet.

    Raises:
      UserError: it cannot be written; what was there before stays.
    """
    if is_remote(path):
        with tempfile.TemporaryDirectory(prefix="vosr-") as folder, writing(path):
            part = Path(folder) / "part"
            yield part
            filesystem(path).put_file(str(part), os.fspath(path))
        return
    target = Path(path)
    with writing(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        if _is_device(target):
            # A rename onto a device such as /dev/null would replace the device.
            with tempfile.TemporaryDirectory(prefix="vosr-") as folder:
                part = Path(folder) / "part"
                yield part
                target.write_bytes(part.read_bytes())
            return
        part = _part(target)
        try:
            yield part
            _sync(part)
            part.replace(target)
            with contextlib.suppress(OSError):  # not every file system syncs folders
                _sync(target.parent)
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


def create(path: str | os.PathLike, data: bytes) -> bool:
    """Write a file unless it exists; of several concurrent writers exactly one succeeds.

    Returns:
      Whether it was written.

    Raises:
      UserError: it cannot be written.
    """
    with writing(path):
        try:
            if is_remote(path):
                filesystem(path).pipe_file(os.fspath(path), data, mode="create")
            else:
                _create_on_disk(Path(path), data)
        except FileExistsError:
            return False
    return True


def _create_on_disk(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = _part(target)
    try:
        part.write_bytes(data)
        _sync(part)
        os.link(part, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A mounted bucket or a FAT disk has no links. A concurrent reader may see an empty file.
        with target.open("xb") as file:
            file.write(data)
    finally:
        part.unlink(missing_ok=True)


def remove_parts(path: str | os.PathLike) -> None:
    """Remove temporary files that killed writers of this file left behind.

    An object store has none: an unfinished upload does not appear in it.
    """
    if is_remote(path):
        return
    for part in Path(path).parent.glob(f"{_stem(Path(path))}*.part"):
        with contextlib.suppress(OSError):
            part.unlink()


def _part(target: Path) -> Path:
    """A short temporary name, since the file's own name may have no room for a suffix.

    It is random because hosts that share a folder may have equal process ids.
    """
    return target.with_name(f"{_stem(target)}{uuid.uuid4().hex[:16]}.part")


def _stem(path: Path) -> str:
    return f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]}."


def _is_device(path: Path) -> bool:
    try:
        kind = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(kind) or stat.S_ISDIR(kind))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: str | os.PathLike) -> None:
    """Create a folder for results, with its parents.

    Raises:
      UserError: it cannot be created or written.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path} ({error.strerror})") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"the folder {path} cannot be written; choose another")


@contextlib.contextmanager
def whole_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """Yield a local folder to write into; it gets its name if the block ends without an error.

    Yields:
      The folder to write into; it exists and is empty.

    Raises:
      UserError: the target exists and is not empty, or cannot be written.
    """
    if is_remote(folder):
        if listing(folder):
            raise UserError(f"{os.fspath(folder)} is not empty; choose another folder")
        with tempfile.TemporaryDirectory(prefix="vosr-") as place:
            yield Path(place)
            _upload(Path(place), os.fspath(folder).rstrip("/"))
        return
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} exists and is not empty; choose another folder")
    draft = target.with_name(f".{target.name[:100]}.{uuid.uuid4().hex[:16]}.partial")
    try:
        draft.mkdir(parents=True)
        yield draft
        if target.exists():
            target.rmdir()
        draft.rename(target)
    except OSError as error:
        reason = reason_of(error)
        raise UserError(f"{target} cannot be written ({reason}); choose another folder") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def folder_size(folder: str | os.PathLike) -> int:
    """Bytes of all files below a folder.

    Raises:
      UserError: a bucket cannot be read.
    """
    if is_remote(folder):
        with reading(folder):
            return int(filesystem(folder).du(os.fspath(folder)))
    return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


def _upload(draft: Path, folder: str) -> None:
    files = [file for file in draft.rglob("*") if file.is_file()]
    files.sort(key=lambda file: _LAST.index(file.name) if file.name in _LAST else -1)
    with writing(folder):
        for file in files:
            place = f"{folder}/{file.relative_to(draft).as_posix()}"
            filesystem(folder).put_file(str(file), place)


class Attempts:
    """Runs writers and reports a failing one once until it succeeds again.

    Args:
      tell: called with the line of a failure.
    """

    def __init__(self, tell: Callable[[str], object]):
        self._tell = tell
        self._failing: set[str] = set()

    def __call__(self, what: str, write: Callable[[], object]) -> bool:
        """Run a writer; returns whether it succeeded.

        Args:
          what: name of the output, for the message.
          write: writes it.
        """
        try:
            write()
        # The libraries that write raise errors of many kinds.
        except Exception as error:
            if what not in self._failing:
                self._failing.add(what)
                reason = reason_of(error.__cause__ or error)
                self._tell(f"{what} cannot be written ({reason}); training goes on without it")
            return False
        self._failing.discard(what)
        return True
