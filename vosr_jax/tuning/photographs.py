"""A user's folder of photos: its content, which of them are usable, which are held out."""

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from vosr_jax.data.pictures import UnreadablePicture, read_picture
from vosr_jax.data.preparation import FilterSettings
from vosr_jax.data.preparation.filters import grey_levels, hash_distance, perceptual_hash, sharpness
from vosr_jax.data.sources.files import folder_source
from vosr_jax.errors import UserError

FEWEST = 8
# Open at most this many beforehand: decoding a photo takes a tenth of a second.
_MOST_LOOKED_AT = 1000
_NAMED = 3
# Photo formats that the data pipeline does not read.
_OTHERS = frozenset(".heic .heif .arw .cr2 .cr3 .dng .nef .orf .raf .rw2".split())


@dataclasses.dataclass(frozen=True)
class Photographs:
    """Photos found in a folder.

    Attributes:
      folder: absolute.
      good: usable files, sorted.
      small, unreadable, soft: unusable files, by reason.
      unseen: files that were not opened because there are very many; they are used too.
      megapixels: the median of the good ones.
      hashes: of the good ones, to find photos of the same subject.
    """

    folder: Path
    good: tuple[Path, ...]
    small: tuple[Path, ...]
    unreadable: tuple[Path, ...]
    soft: tuple[Path, ...]
    unseen: tuple[Path, ...]
    megapixels: float
    hashes: dict[Path, int]

    def describe(self, min_side: int) -> list[str]:
        """A few lines for the user about the photos."""
        count = len(self.good) + len(self.unseen)
        lines = [
            f"{self.folder}: {count} photographs serve, about {self.megapixels:.2g} megapixels"
        ]
        reasons = (
            (self.small, f"smaller than {min_side} px"),
            (self.unreadable, "unreadable"),
            (self.soft, "soft, nothing in focus"),
        )
        for files, reason in reasons:
            if files:
                lines.append(f"left out, {reason}: {len(files)} ({_some(files)})")
        if self.unseen:
            lines.append(
                f"trained on without a look, for time: {len(self.unseen)}; some may show what is "
                "held out"
            )
        return lines


def look(folder: str | Path, min_side: int, tell: Callable[[str], None] = print) -> Photographs:
    """Open the photos below a folder and check whether they are usable for training.

    Args:
      folder: on a disk.
      min_side: of the shorter side, pixels.
      tell: gets the lines of `describe`.

    Raises:
      UserError: there is no such folder, it holds no images, or too few of them are usable.
    """
    place = Path(folder).expanduser().resolve()
    if not place.is_dir():
        raise UserError(f"there is no folder {folder}; name the one that holds your photographs")
    try:
        names = folder_source(str(place)).files
    except UserError as error:
        # The data pipeline's message names a config key that the user has not set here.
        raise UserError(str(error).removeprefix("data.sources: ")) from error
    files = [place / name for name in names]
    seen = files[:: -(-len(files) // _MOST_LOOKED_AT)]
    found = _sorted_out(place, seen, min_side)
    found = dataclasses.replace(found, unseen=tuple(sorted(set(files) - set(seen))))
    others = [file for file in sorted(place.rglob("*")) if file.suffix.lower() in _OTHERS]
    if others:
        tell(f"left out, save them as JPEG first: {len(others)} ({_some(others)})")
    for line in found.describe(min_side):
        tell(line)
    if len(found.good) < FEWEST:
        raise UserError(
            f"{folder}: {len(found.good)} of {len(files)} photographs serve, and at least {FEWEST} "
            f"are needed; add sharp ones whose shorter side has {min_side} pixels or more"
        )
    return found


def _sorted_out(place: Path, files: Sequence[Path], min_side: int) -> Photographs:
    limit = FilterSettings().min_sharpness
    kinds: dict[str, list[Path]] = {"good": [], "small": [], "unreadable": [], "soft": []}
    hashes, sizes = {}, []
    for file in files:
        try:
            picture = read_picture(file)
        except UnreadablePicture:
            kinds["unreadable"].append(file)
            continue
        height, width = picture.shape[:2]
        if min(height, width) < min_side:
            kinds["small"].append(file)
            continue
        grey = grey_levels(picture)
        if sharpness(grey) < limit:
            kinds["soft"].append(file)
            continue
        kinds["good"].append(file)
        hashes[file] = perceptual_hash(grey)
        sizes.append(height * width / 1e6)
    median = sorted(sizes)[len(sizes) // 2] if sizes else 0.0
    return Photographs(
        folder=place,
        **{kind: tuple(found) for kind, found in kinds.items()},
        unseen=(),
        megapixels=median,
        hashes=hashes,
    )


def divide(found: Photographs) -> tuple[list[Path], list[Path]]:
    """(files to train on, files held out); a sixth is held out, two at least and eight at most.

    The names alone decide which are held out. A photo of the same subject as a held-out one is
    not trained on either, as far as the photos were opened.

    Args:
      found: from `look`.

    Raises:
      UserError: nearly all photos show the same subject.
    """
    count = min(max(len(found.good) // 6, 2), 8)
    order = sorted(found.good, key=lambda file: (zlib.crc32(file.name.encode()), file))
    held = sorted(order[:count])
    distance = FilterSettings().duplicate_distance
    known = [found.hashes[file] for file in held]
    kept = [
        file
        for file in sorted(order[count:])
        if all(hash_distance(found.hashes[file], other) > distance for other in known)
    ]
    if len(kept) < FEWEST // 2:
        raise UserError(
            f"{found.folder}: nearly all photographs show the same thing, and {len(kept)} are left "
            "beside those held out; add others"
        )
    return [*kept, *found.unseen], held


def _some(files: Sequence[Path]) -> str:
    more = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
    return ", ".join(file.name for file in files[:_NAMED]) + more
