"""Local copies of files in a bucket, for readers that need a file on a disk.

They are in the cache folder: `VOSR_CACHE` or the user's own. A copy is made again when the size or
the checksum that the store states has changed.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vosr_jax.compilation_cache import user_cache
from vosr_jax.errors import UserError
from vosr_jax.files.atomic import whole_file, write_json
from vosr_jax.files.paths import filesystem, is_remote, reading

_AT_ONCE = 8
# Bytes left free on the disk for other programs.
_SPARE = 1 << 28
# A store's facts about an object that change with its content; the best first.
_CHECKSUMS = ("md5Hash", "crc32c", "ETag", "etag")


def identity_of(facts: dict[str, Any]) -> tuple[int, str]:
    """(bytes, checksum) of an object, from the facts that its store states."""
    tag = next((str(facts[key]) for key in _CHECKSUMS if facts.get(key)), "")
    return int(facts["size"]), tag


def local_copy(path: str | os.PathLike) -> Path:
    """Return a local file with a path's content: the path itself, or a copy.

    Raises:
      UserError: it cannot be read, or the cache has no room for it.
    """
    text = os.fspath(path)
    if not is_remote(text):
        return Path(text)
    parent, _, name = text.rpartition("/")
    with reading(text):
        facts = filesystem(text).info(text)
    return _copied([(name, facts)], parent)[0]


def local_copies(paths: Sequence[str]) -> list[Path]:
    """Do as `local_copy` for many files in parallel; the order is kept."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(local_copy, paths))


def local_folder(
    path: str | os.PathLike, wanted: Callable[[str], bool] = lambda name: True
) -> Path:
    """Return a local folder with everything below a path: the path itself, or a copy.

    Args:
      path: a folder, or an address of one.
      wanted: takes a name below it, with slashes; returns whether to copy it.

    Raises:
      UserError: there is no such folder, or the cache has no room for it.
    """
    text = os.fspath(path).rstrip("/")
    if not is_remote(text):
        return Path(text)
    root = text.partition("://")[2]
    with reading(text):
        found = filesystem(text).find(text, detail=True)
    named = [(place[len(root) :].lstrip("/"), facts) for place, facts in found.items()]
    named = [(name, facts) for name, facts in named if name and wanted(name)]
    if not named:
        raise UserError(f"there is nothing at {text}; check that the bucket and the path are right")
    _copied(named, text)
    return _home(text)


def _home(folder: str) -> Path:
    digest = hashlib.sha256(folder.encode()).hexdigest()[:24]
    return user_cache() / "copies" / digest / folder.rpartition("/")[2]


def _copied(named: list[tuple[str, dict[str, Any]]], folder: str) -> list[Path]:
    home = _home(folder)
    stale = [(n, f) for n, f in named if not _is_copied(home / n, identity_of(f))]
    if stale:
        try:
            home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{home} cannot be written ({error.strerror}); set VOSR_CACHE to another folder"
            ) from error
        _require_room(home, sum(int(facts["size"]) for _, facts in stale), folder)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda one: _fetch(home / one[0], f"{folder}/{one[0]}", one[1]), stale))
    return [home / name for name, _ in named]


def _require_room(home: Path, needed: int, folder: str) -> None:
    free = shutil.disk_usage(home).free
    if needed + _SPARE > free:
        raise UserError(
            f"{folder}: a copy of {needed / 1e9:.1f} GB does not fit into {home}, which has "
            f"{free / 1e9:.1f} GB left; set VOSR_CACHE to a folder with more"
        )


def _fetch(target: Path, source: str, facts: dict[str, Any]) -> None:
    identity = identity_of(facts)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _held(target):
        # Another process may have copied it meanwhile.
        if _is_copied(target, identity):
            return
        with whole_file(target) as part:
            with reading(source):
                filesystem(source).get_file(source, str(part))
            size = part.stat().st_size
            if size != identity[0]:
                raise UserError(f"{source} came with {size} bytes of {identity[0]}; try again")
        write_json(_note(target), {"source": source, "identity": identity})


def _is_copied(target: Path, identity: tuple[int, str]) -> bool:
    try:
        noted = json.loads(_note(target).read_text())["identity"]
        return tuple(noted) == identity and target.stat().st_size == identity[0]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _note(target: Path) -> Path:
    return target.with_name(f".{target.name}.copied")


@contextmanager
def _held(target: Path) -> Iterator[None]:
    """Lock a target against other processes; a killed process leaves no lock behind."""
    with target.with_name(f".{target.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
