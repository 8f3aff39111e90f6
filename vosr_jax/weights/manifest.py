"""manifest.json: a converted folder's content, its source and the sha256 of every file."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vosr_jax.errors import UserError
from vosr_jax.files import read_json_object, reading, size_of, to_path, write_json

NAME = "manifest.json"
_LEVELS = 5
_CHUNK = 1 << 22


def sha256(path: str | os.PathLike) -> str:
    """Compute the checksum of a file.

    Raises:
      UserError: it cannot be read.
    """
    digest = hashlib.sha256()
    with reading(path), to_path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def describe_files(root: Path, files: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """{path: sha256 and size}; a file outside root is keyed by its folder and name."""
    described: dict[str, dict[str, Any]] = {}
    for file in sorted(set(files)):
        inside = file.is_relative_to(root)
        name = file.relative_to(root).as_posix() if inside else f"{file.parent.name}/{file.name}"
        described[name] = {"sha256": sha256(file), "bytes": size_of(to_path(file))}
    return described


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write the manifest of a finished folder; `files` is filled in from its content."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != NAME]
    content = content | {"files": describe_files(folder, files)}
    write_json(folder / NAME, content)


def find_manifest(path: str | Path) -> Path | None:
    """Find the manifest of a model's folder, in it or up to five folders above."""
    folder = Path(path).resolve()
    for candidate in [folder, *folder.parents][: _LEVELS + 1]:
        if (candidate / NAME).is_file():
            return candidate / NAME
    return None


def verify(path: str | Path) -> int:
    """Check every file of a converted folder against its manifest.

    Args:
      path: the folder, or one inside it.

    Returns:
      Number of files checked.

    Raises:
      UserError: there is no manifest, or a file (it is named) is missing or has changed.
    """
    file = find_manifest(path)
    if file is None:
        raise UserError(
            f"{path} has no {NAME} to be checked against; `vosr convert` writes one with its files"
        )
    stated = read_json_object(file).get("files")
    if not isinstance(stated, dict):
        raise UserError(f"{file} is damaged: it names no files")
    for name, facts in stated.items():
        place = file.parent / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(f"{file} names {name}, which lies outside its folder")
        if not place.is_file():
            raise UserError(f"{place} is missing, which {file} names; convert or fetch it again")
        if not isinstance(facts, dict) or sha256(place) != facts.get("sha256"):
            raise UserError(
                f"{place} is not the file that was written: its sha256 differs from the one in "
                f"{NAME}; convert or fetch it again"
            )
    return len(stated)
