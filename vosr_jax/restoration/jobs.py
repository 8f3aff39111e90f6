"""Which pictures a run restores, and where each result goes. Depends on names alone."""

import collections
import dataclasses
import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from vosr_jax.errors import UserError
from vosr_jax.files.photo_reading import SUFFIXES
from vosr_jax.files.photo_writing import SUFFIXES as WRITABLE
from vosr_jax.restoration.manifest import is_manifest, results_in
from vosr_jax.restoration.result_names import Source, name_results


@dataclasses.dataclass(frozen=True)
class Job:
    """One picture to restore.

    Attributes:
      source: the file.
      name: the result's path below the output folder, with slashes.
      target: the result.
      comparison: where input, bicubic and result go side by side.
    """

    source: Path
    name: str
    target: Path
    comparison: Path


@dataclasses.dataclass
class Plan:
    """What a run has before it.

    Attributes:
      folder: of the results.
      jobs: sorted by the result's name.
      ignored: {ending: files in searched folders that are no pictures}.
    """

    folder: Path
    jobs: list[Job]
    ignored: collections.Counter[str]

    @property
    def ignored_line(self) -> str | None:
        """One line on the files that were left aside."""
        if not self.ignored:
            return None
        kinds = ", ".join(
            f"{count} {kind}" if count > 1 else kind for kind, count in sorted(self.ignored.items())
        )
        total = sum(self.ignored.values())
        return f"{total} other {'file' if total == 1 else 'files'} ignored: {kinds}"


def plan_jobs(
    paths: Sequence[str],
    out: Path,
    *,
    suffix: str = "",
    ending: str | None = None,
    recursive: bool = False,
    compare: bool = False,
) -> Plan:
    """A job for every picture.

    Args:
      paths: pictures, folders of pictures, and patterns like "trip/*.jpg" or "trip/**/*.jpg".
      out: folder of the results, or the file of the only one. Results of ours that lie in
        searched folders are left out.
      suffix: added to the results' names.
      ending: of the results' names, without the dot; "png" if None.
      recursive: whether folders in folders are searched; results keep their subfolder.
      compare: whether comparisons are written beside the results.

    Raises:
      UserError: a folder without pictures, a pattern that fits none, one file for several
        results, or a result that would replace its source.
    """
    one_file = out.suffix.lower() in SUFFIXES and not out.is_dir()
    search = _Search(out.parent if one_file else out, recursive)
    sources: dict[Path, Source] = {}
    for source in search.all(paths):
        sources.setdefault(source.path.resolve(), source)
    found = list(sources.values())
    if one_file:
        return Plan(out.parent, [_single(found, out, suffix, ending)], search.ignored)
    names = name_results(found, out, suffix, ending or "png", compare)
    jobs = [
        Job(source.path, result, out / result, out / comparison)
        for source, (result, comparison) in zip(found, names, strict=True)
    ]
    return Plan(out, sorted(jobs, key=lambda job: job.name), search.ignored)


def _single(found: list[Source], out: Path, suffix: str, ending: str | None) -> Job:
    if out.suffix.lower() not in WRITABLE:
        known = ", ".join(WRITABLE)
        raise UserError(f"{out}: cannot write '{out.suffix}' files; choose one of {known}")
    if len(found) > 1:
        raise UserError(
            f"-o {out} is one file for {len(found)} pictures; give a folder, or one picture"
        )
    if suffix or ending is not None:
        flag = "--suffix" if suffix else "--format"
        raise UserError(f"-o {out} says name and format already; leave {flag} out")
    source = found[0].path
    if out.exists() and out.resolve() == source.resolve():
        raise UserError(f"{source} would be replaced by its result; choose another -o")
    return Job(source, out.name, out, out.with_name(f"{out.stem}-compare.png"))


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


class _Search:
    """Pictures below what is named on the command line; counts what it leaves aside."""

    def __init__(self, out: Path, recursive: bool):
        self._out = out.resolve()
        self._recursive = recursive
        self._results: dict[Path, set[str]] = {}
        self.ignored: collections.Counter[str] = collections.Counter()

    def all(self, paths: Sequence[str]) -> Iterator[Source]:
        for text in paths:
            path = Path(text)
            if not text:
                raise UserError("an empty path was given; name a picture or a folder")
            if path.is_dir():
                yield from self._pictures_in(path)
            elif path.exists() or not glob.has_magic(text):
                yield Source(path, Path())
            else:
                yield from self._matches(text)

    def _pictures_in(self, folder: Path) -> Iterator[Source]:
        files = sorted(folder.rglob("*") if self._recursive else folder.iterdir())
        inside = [(file, file.relative_to(folder)) for file in files if file.is_file()]
        found = [
            Source(file, place.parent)
            for file, place in inside
            if not any(part.startswith(".") for part in place.parts)
            and self._is_picture(file, folder)
        ]
        if not found:
            deeper = "" if self._recursive else "; --recursive searches its folders too"
            raise UserError(f"{folder} holds no pictures ({', '.join(SUFFIXES)}){deeper}")
        yield from found

    def _matches(self, pattern: str) -> Iterator[Source]:
        """Where the shell has left a pattern alone: quoted, or on Windows."""
        fixed = Path(*_before_magic(Path(pattern).parts))
        files = sorted(Path(name) for name in glob.glob(pattern, recursive=True))
        found = [file for file in files if file.is_file() and self._is_picture(file, fixed)]
        if not found:
            known = ", ".join(SUFFIXES)
            raise UserError(f"'{pattern}' fits no picture ({known}); check the pattern")
        for file in found:
            yield Source(file, file.relative_to(fixed).parent)

    def _is_picture(self, file: Path, searched: Path) -> bool:
        if is_manifest(file) or self._is_result(file, searched):
            return False
        if file.suffix.lower() in SUFFIXES:
            return True
        self.ignored[file.suffix.lower() or "without an ending"] += 1
        return False

    def _is_result(self, file: Path, searched: Path) -> bool:
        """Whether a file is a result of ours, by its folder's manifest or one above."""
        place = file.resolve()
        if searched.resolve() in self._out.parents and self._out in place.parents:
            return True  # the folder of results lies within the searched one
        return any(os.path.normcase(place) in self._known(folder) for folder in place.parents)

    def _known(self, folder: Path) -> set[str]:
        if folder not in self._results:
            self._results[folder] = {os.path.normcase(folder / name) for name in results_in(folder)}
        return self._results[folder]


def _before_magic(parts: Sequence[str]) -> list[str]:
    fixed = []
    for part in parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return fixed
