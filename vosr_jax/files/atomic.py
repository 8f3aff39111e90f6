"""Atomic writes: a file appears complete or not at all.

On a disk: a temporary file in the same folder, fsync, rename. An object store has no rename; there
it is one upload, which the store shows only once it is complete.
"""

import contextlib
import errno
import hashlib
import json
import os
import stat
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vosr_jax.files.paths import filesystem, is_remote, writing

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


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
