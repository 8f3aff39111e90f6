"""Which pictures a run restores, and where each result goes. Depends on names alone."""

import dataclasses
import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from vosr_jax.errors import UserError
from vosr_jax.restoration.picture import SUFFIXES


@dataclasses.dataclass(frozen=True)
class Job:
    """One picture to restore.

    Attributes:
      source: the file.
      name: the result's path below the output folder, with slashes.
      target: the result.
    """

    source: Path
    name: str
    target: Path


def plan_jobs(
    paths: Sequence[str],
    out: Path,
    *,
    suffix: str = "",
    ending: str = "png",
    recursive: bool = False,
) -> list[Job]:
    """A job for every picture, sorted by the result's name.

    Args:
      paths: pictures, folders of pictures, and patterns like "trip/*.jpg" or "trip/**/*.jpg".
      out: folder of the results; below a folder that is searched, it is left out.
      suffix: added to the results' names.
      ending: of the results' names, without the dot.
      recursive: whether folders in folders are searched; results keep their subfolder.

    Raises:
      UserError: a folder without pictures, a pattern that fits none, two pictures with one
        result, or a result that would replace its source.
    """
    jobs: dict[str, Job] = {}
    for source, folder in _sources(paths, out, recursive):
        place = (folder / f"{source.stem}{suffix}.{ending}").as_posix()
        job = Job(source, place, out / place)
        other = jobs.setdefault(place, job).source
        if other.resolve() != source.resolve():
            raise UserError(
                f"{other} and {source} would both be written to {job.target}; "
                "restore them into different folders"
            )
        if job.target.exists() and job.target.resolve() == source.resolve():
            raise UserError(f"{source} would be replaced by its result; set --suffix or another -o")
    return [jobs[place] for place in sorted(jobs)]


def share_of(jobs: Sequence[Job], index: int, count: int) -> list[Job]:
    """What one of several processes restores: every count-th job, whatever is finished already.

    Raises:
      UserError: the index is none of 0..count - 1.
    """
    if not 0 <= index < count:
        raise UserError(
            f"--process-index must be between 0 and {count - 1} (--process-count {count}), "
            f"not {index}"
        )
    return list(jobs[index::count])


def _sources(paths: Sequence[str], out: Path, recursive: bool) -> Iterator[tuple[Path, Path]]:
    """(file, its folder below the one that was named) for all that is named, in order."""
    for text in paths:
        path = Path(text)
        if path.is_dir():
            if path.resolve() == out.resolve():
                raise UserError(f"{path} is both input and output folder; choose another for -o")
            yield from _pictures_in(path, out, recursive)
        elif path.exists() or not glob.has_magic(text):
            yield path, Path()
        else:
            yield from _matches(text)


def _pictures_in(folder: Path, out: Path, recursive: bool) -> Iterator[tuple[Path, Path]]:
    inside = [
        (file, file.relative_to(folder))
        for file in sorted(folder.rglob("*") if recursive else folder.iterdir())
        if file.suffix.lower() in SUFFIXES and file.is_file()
    ]
    results = out.resolve()
    found = [
        (file, place.parent)
        for file, place in inside
        if not any(part.startswith(".") for part in place.parts)
        and results not in file.resolve().parents
    ]
    if not found:
        deeper = "" if recursive else "; --recursive searches its folders too"
        raise UserError(f"{folder} holds no pictures ({', '.join(SUFFIXES)}){deeper}")
    yield from found


def _matches(pattern: str) -> Iterator[tuple[Path, Path]]:
    """Where the shell has left a pattern alone: quoted, or on Windows."""
    found = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]
    pictures = [path for path in found if path.is_file() and path.suffix.lower() in SUFFIXES]
    if not pictures:
        raise UserError(f"'{pattern}' fits no picture ({', '.join(SUFFIXES)}); check the pattern")
    for path in pictures:
        yield path, Path()
