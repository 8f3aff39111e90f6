"""Choose the photos that a run restores and the path of each result, by names alone.

No two results share a path, and none replaces a source.
"""

import collections
import dataclasses
import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from vosr_jax.errors import UserError
from vosr_jax.files.photo_reading import SUFFIXES
from vosr_jax.files.photo_writing import SUFFIXES as WRITABLE
from vosr_jax.restoration.manifest import is_manifest, results_in

# Longest file name that file systems allow, in bytes.
_LONGEST = 255
_COMPARISON = "-compare.png"


@dataclasses.dataclass(frozen=True)
class Source:
    """A photo that was found.

    Attributes:
      path: the file.
      folder: its folder, relative to the given folder or pattern.
    """

    path: Path
    folder: Path


def name_results(
    sources: Sequence[Source], out: Path, suffix: str, ending: str, compare: bool
) -> list[tuple[str, str]]:
    """Name (result, comparison) of every source, as paths below `out` with slashes.

    A result is named after its source. If two names collide, or one would replace a source, the
    names include the source's extension. If they still collide, they include the sources' folders.

    Raises:
      UserError: the names still collide.
    """
    inputs = {os.path.normcase(source.path.resolve()) for source in sources}
    home = os.path.normcase(out.resolve())
    levels = [0] * len(sources)
    while True:
        common = _common_folder([s for s, level in zip(sources, levels, strict=True) if level >= 2])
        names = [
            _names(source, level, common, suffix, ending)
            for source, level in zip(sources, levels, strict=True)
        ]
        users: dict[str, list[int]] = {}
        for number, pair in enumerate(names):
            for name in pair if compare else pair[:1]:
                users.setdefault(name.casefold(), []).append(number)
        meeting = {number for numbers in users.values() if len(numbers) > 1 for number in numbers}
        for number, pair in enumerate(names):
            for name in pair if compare else pair[:1]:
                if os.path.normcase(os.path.join(home, name)) in inputs:
                    meeting.add(number)
        if not meeting:
            return names
        if all(levels[number] == 3 for number in meeting):
            first = min(meeting)
            raise UserError(
                f"the result of {sources[first].path}, {out / names[first][0]}, would meet a "
                "source or another result; set --suffix or another -o"
            )
        for number in meeting:
            levels[number] = min(levels[number] + 1, 3)


def _names(source: Source, level: int, common: Path, suffix: str, ending: str) -> tuple[str, str]:
    stem = source.path.name if level in (1, 3) else source.path.stem
    folder = source.folder
    if level >= 2:
        folder = source.path.resolve().parent.relative_to(common)
    stem = _shortened(stem, suffix, ending)
    result, comparison = f"{stem}{suffix}.{ending}", f"{stem}{suffix}{_COMPARISON}"
    return (folder / result).as_posix(), (folder / comparison).as_posix()


def _common_folder(sources: Sequence[Source]) -> Path:
    """The deepest folder that contains all sources."""
    if not sources:
        return Path()
    return Path(os.path.commonpath([source.path.resolve().parent for source in sources]))


def _shortened(stem: str, suffix: str, ending: str) -> str:
    """Cut a stem to leave room for the rest of the name; a cut one ends in its checksum."""
    room = _LONGEST - len(os.fsencode(suffix)) - max(len(_COMPARISON), len(ending) + 1)
    if len(os.fsencode(stem)) <= room:
        return stem
    mark = "~" + hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]
    kept = os.fsencode(stem)[: max(room - len(mark), 1)].decode("utf-8", "ignore")
    return kept + mark


@dataclasses.dataclass(frozen=True)
class Job:
    """One photo to restore.

    Attributes:
      source: the file.
      name: the result's path below the output folder, with slashes.
      target: the result.
      comparison: file of input, bicubic and result side by side.
    """

    source: Path
    name: str
    target: Path
    comparison: Path


@dataclasses.dataclass
class RestorePlan:
    """The jobs of a run.

    Attributes:
      folder: of the results.
      jobs: sorted by the result's name.
      ignored: {extension: count of files in searched folders that are not photos}.
    """

    folder: Path
    jobs: list[Job]
    ignored: collections.Counter[str]

    @property
    def ignored_line(self) -> str | None:
        """One line about the ignored files, or None."""
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
) -> RestorePlan:
    """Plan a job for every photo.

    Args:
      paths: photos, folders of photos, and patterns like "trip/*.jpg" or "trip/**/*.jpg".
      out: folder of the results, or the file of a single result. Earlier results of this command
        in searched folders are skipped.
      suffix: added to the results' names.
      ending: extension of the results' names, without the dot; "png" if None.
      recursive: whether subfolders are searched; results keep their subfolder.
      compare: whether comparisons are written beside the results.

    Raises:
      UserError: a folder holds no photos, a pattern matches none, one file is given for several
        results, or a result would replace its source.
    """
    one_file = out.suffix.lower() in SUFFIXES and not out.is_dir()
    search = _Search(out.parent if one_file else out, recursive)
    sources: dict[Path, Source] = {}
    for source in search.all(paths):
        sources.setdefault(source.path.resolve(), source)
    found = list(sources.values())
    if one_file:
        return RestorePlan(out.parent, [_single(found, out, suffix, ending)], search.ignored)
    names = name_results(found, out, suffix, ending or "png", compare)
    jobs = [
        Job(source.path, result, out / result, out / comparison)
        for source, (result, comparison) in zip(found, names, strict=True)
    ]
    return RestorePlan(out, sorted(jobs, key=lambda job: job.name), search.ignored)


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
    """The jobs of one of several processes: every count-th job, finished or not.

    Raises:
      UserError: the index is not in 0..count - 1.
    """
    if not 0 <= index < count:
        raise UserError(
            f"--process-index must be between 0 and {count - 1} (--process-count {count}), "
            f"not {index}"
        )
    return list(jobs[index::count])


class _Search:
    """Search for photos in the paths of the command line; count the ignored files."""

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
        """Expand a pattern that the shell left alone: quoted, or on Windows."""
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
        """Whether a manifest in the file's folder or one above lists it as a result."""
        place = file.resolve()
        if searched.resolve() in self._out.parents and self._out in place.parents:
            return True  # the output folder lies inside the searched one
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
