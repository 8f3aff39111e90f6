"""Folders for results, and folders that appear under their name only when complete.

An object store has no folders to rename. There the files are uploaded when all are made. The files
that readers look for first (config.json, manifest.json, args.json) come last.
"""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vosr_jax.errors import UserError
from vosr_jax.files.paths import filesystem, is_remote, listing, reading, reason_of, writing

_LAST = ("args.json", "config.json", "manifest.json")


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


@contextmanager
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
