"""Fixed pairs, for validation in training or as folders for `eval.hr` and `eval.lr`."""

import dataclasses
import logging
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vosr_jax.data.cropping import at_least, random_crop
from vosr_jax.data.degradation import Settings, degrade
from vosr_jax.data.degradation.noise import eight_bits
from vosr_jax.data.pictures import UnreadablePicture, read_picture
from vosr_jax.data.sources import Source, parse_sources
from vosr_jax.errors import UserError
from vosr_jax.files import whole_folder, write_json

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Pair:
    """A crop and its degraded versions.

    Attributes:
      name: the image's name with the crop's index.
      hr: [side, side, 3] uint8.
      lr: [side / scale, side / scale, 3] uint8.
      lq: lr resized back to side before rounding, [side, side, 3] uint8.
    """

    name: str
    hr: np.ndarray
    lr: np.ndarray
    lq: np.ndarray


def readable_pictures(files: Sequence[str | Path], count: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, [H, W, 3] uint8) of the first readable files, one after another.

    No more files are opened than needed. An unreadable one is logged and the next takes its place,
    since a run must not end because of a validation image.

    Args:
      files: image files in a fixed order.
      count: most images to yield.

    Raises:
      UserError: none can be read.
    """
    given, last = 0, None
    for file in files:
        if given == count:
            return
        try:
            pixels = read_picture(file)
        except UnreadablePicture as error:
            last = f"the validation picture {file} cannot be read: {error}"
            _LOG.warning("%s; the next is taken in its place", last)
            continue
        given += 1
        yield Path(file).stem, pixels
    if not given and last:
        raise UserError(f"{last}; nor can any other")


def validation_pairs(
    pictures: Iterable[str | Path | tuple[str, np.ndarray]],
    *,
    crop_size: int,
    scale: int,
    seed: int,
    degradation: Settings,
    crops_per_picture: int = 1,
) -> list[Pair]:
    """Make pairs that depend on the images' names, their pixels and the seed alone.

    Args:
      pictures: files, or (name, [H, W, 3] uint8); smaller ones are enlarged to the crop.
      crop_size: side of the crops, pixels.
      scale: factor between HR and LR size.
      seed: seed of the crops' positions and the degradation.
      degradation: settings of the random degradation.
      crops_per_picture: number of crops per image.

    Raises:
      UserError: a file cannot be read.
    """
    pairs = []
    for picture in pictures:
        name, pixels = picture if isinstance(picture, tuple) else _read(picture)
        image, _ = at_least(Image.fromarray(pixels), crop_size)
        for number in range(crops_per_picture):
            rng = np.random.default_rng((seed, zlib.crc32(name.encode()), number))
            hr = random_crop(image, crop_size, rng, flip=False)
            lr, lq = degrade(hr, rng, degradation, scale)
            pairs.append(Pair(f"{name}-{number}", hr, eight_bits(lr), lq))
    return pairs


def _read(path: str | Path) -> tuple[str, np.ndarray]:
    try:
        return Path(path).stem, read_picture(path)
    except UnreadablePicture as error:
        raise UserError(f"the validation picture {path} cannot be read: {error}") from error


def write_evaluation_set(
    sources: str | None,
    out: str | Path,
    *,
    count: int,
    crop_size: int,
    scale: int,
    seed: int,
    degradation: Settings,
    crops_per_picture: int = 1,
) -> tuple[int, list[str]]:
    """Write `out/hr`, `out/lr` and `out/pairs.json`.

    The sources and the seed alone determine the images, crops and degradations.

    Args:
      sources: text as in `data.sources`; images are drawn without repetition.
      out: folder that does not exist yet, or is empty.
      count: number of images, or 0 for all.
      crop_size, scale, seed, degradation, crops_per_picture: see validation_pairs.

    Returns:
      (number of pairs, names of images that could not be read and were skipped).

    Raises:
      UserError: a source is wrong, the folder is not empty, or no image can be read.
    """
    unreadable: list[str] = []
    with whole_folder(out) as part:
        (part / "hr").mkdir()
        (part / "lr").mkdir()
        listed = []
        pictures = _pictures(parse_sources(sources), count, seed, unreadable)
        for name, record, pixels in pictures:
            pairs = validation_pairs(
                [(name, pixels)],
                crop_size=crop_size,
                scale=scale,
                seed=seed,
                degradation=degradation,
                crops_per_picture=crops_per_picture,
            )
            for pair in pairs:
                Image.fromarray(pair.hr).save(part / "hr" / f"{pair.name}.png")
                Image.fromarray(pair.lr).save(part / "lr" / f"{pair.name}.png")
                listed.append({"name": pair.name, "record": record})
        if not listed:
            raise UserError("none of the pictures can be read; name other sources")
        about = {
            "seed": seed,
            "scale": scale,
            "crop_size": crop_size,
            "degradation": dataclasses.asdict(degradation),
            "pairs": listed,
        }
        write_json(part / "pairs.json", about)
    return len(listed), unreadable


def _pictures(
    sources: tuple[Source, ...], count: int, seed: int, unreadable: list[str]
) -> Iterator[tuple[str, str, np.ndarray]]:
    """(unique name, record, pixels) of the images, in a random order given by the seed."""
    lengths = [len(source) for source in sources]
    order = np.random.default_rng(seed).permutation(sum(lengths))
    ends = np.cumsum(lengths)
    used: Counter[str] = Counter()
    given = 0
    for rank in order:
        if count and given == count:
            return
        number = int(np.searchsorted(ends, rank, side="right"))
        source, position = sources[number], int(rank) - int(ends[number]) + lengths[number]
        record = source.record_name(position)
        try:
            pixels = source.read(position)
        except UnreadablePicture as error:
            unreadable.append(f"{record} ({error})")
            continue
        stem = _stem(record)
        used[stem] += 1
        name = stem if used[stem] == 1 else f"{stem}_{used[stem]}"
        given += 1
        yield name, record, pixels


def _stem(record: str) -> str:
    """Make a file name from a record's name: its last part without suffix."""
    stem = os.path.splitext(os.path.basename(record.rstrip("/")))[0] or "picture"
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in stem)
