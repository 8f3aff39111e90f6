"""Writing fixed LR/HR pairs into folders, for `eval.hr` and `eval.lr`."""

import dataclasses
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from vosr_jax.data.degradation import Settings
from vosr_jax.data.pictures import UnreadablePicture
from vosr_jax.data.sources import Source, parse_sources
from vosr_jax.data.validation import validation_pairs
from vosr_jax.errors import UserError
from vosr_jax.files import write_json
from vosr_jax.files.folders import whole_folder


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
