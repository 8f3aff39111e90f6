"""Names of results, so that no two meet and none replaces a source."""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from vosr_jax.errors import UserError

# What file systems hold in a name, bytes.
_LONGEST = 255
_COMPARISON = "-compare.png"


@dataclasses.dataclass(frozen=True)
class Source:
    """A picture that was found.

    Attributes:
      path: the file.
      folder: where it lies below the folder or pattern that was named.
    """

    path: Path
    folder: Path


def name_results(
    sources: Sequence[Source], out: Path, suffix: str, ending: str, compare: bool
) -> list[tuple[str, str]]:
    """(result, comparison) of every source, as paths below `out` with slashes.

    A result is called like its source. Where two would meet, or one would replace a source, they
    take the source's ending into their name; where that does not part them, they keep the folders
    in which the sources lie.

    Raises:
      UserError: neither parts them.
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
    """Below which the folders of sources are told apart."""
    if not sources:
        return Path()
    return Path(os.path.commonpath([source.path.resolve().parent for source in sources]))


def _shortened(stem: str, suffix: str, ending: str) -> str:
    """A stem that leaves room for what follows; a cut one ends in a checksum of the whole."""
    room = _LONGEST - len(os.fsencode(suffix)) - max(len(_COMPARISON), len(ending) + 1)
    if len(os.fsencode(stem)) <= room:
        return stem
    mark = "~" + hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]
    kept = os.fsencode(stem)[: max(room - len(mark), 1)].decode("utf-8", "ignore")
    return kept + mark
