"""Cases of an evaluation, with or without a ground truth, read one at a time."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from vosr_jax.config import Config
from vosr_jax.data.degradation import RealESRGANSettings
from vosr_jax.data.validation import Pair, validation_pairs
from vosr_jax.errors import UserError
from vosr_jax.files.cached import local_folder
from vosr_jax.files.photo_reading import SUFFIXES, read_photo

HELD_OUT = Path(__file__).parents[2] / "assets" / "heldout"

# Not a setting: the figures are comparable only with this seed.
_SEED = 0
# Draws of the degradation differ so much that one per image would say little.
_DRAWS = 3
_NAMED = 5


@dataclasses.dataclass(frozen=True)
class EvalPair:
    """One image to restore.

    Attributes:
      name: its unique name.
      source: [h, w, 3] uint8.
      size: (height, width) of the result.
      truth: the ground truth, [H, W, 3] uint8, or None.
    """

    name: str
    source: np.ndarray
    size: tuple[int, int]
    truth: np.ndarray | None

    @property
    def scale(self) -> float:
        """Factor between the result's and the source's size."""
        return self.size[0] / self.source.shape[0]


@dataclasses.dataclass(frozen=True)
class Entry:
    """A case that is read on demand.

    Attributes:
      name: the case's name.
      photograph: the photo that it was cut from; cases of one photo count as one group in the
        intervals.
      load: reads the case; raises UserError if it cannot.
    """

    name: str
    photograph: str
    load: Callable[[], EvalPair]


def entries_of(config: Config) -> list[Entry]:
    """List the cases that `config.eval` names.

    Returns:
      Pairs of `eval.hr` and `eval.lr`; or `eval.lr` alone, without a ground truth; or crops of
      `eval.hr` or else of the held-out photos in assets/heldout, with the official degradation and
      a fixed seed.

    Raises:
      UserError: a folder without images, or an image without a partner.
    """
    e = config.eval
    if e.lr is not None:
        hr = None if e.hr is None else local_folder(e.hr)
        return folder_entries(
            hr,
            local_folder(e.lr),
            scale=config.data.scale,
            centre_crop=e.centre_crop,
            name_endings=e.name_endings,
        )
    pictures = pictures_in(local_folder(e.hr)) if e.hr is not None else held_out_pictures()
    return degraded_entries(pictures, e.crop_size, config.data.scale)


def held_out_pictures() -> list[Path]:
    """List the crops in assets/heldout, by name.

    Raises:
      UserError: the package does not run from its source folder, which has them.
    """
    if not HELD_OUT.is_dir():
        raise UserError(f"{HELD_OUT} is not there; set eval.hr to a folder of photographs")
    return pictures_in(HELD_OUT)


def degraded_entries(
    pictures: Sequence[Path], crop_size: int, scale: int, draws: int = _DRAWS
) -> list[Entry]:
    """Make cases from crops of every image with the official degradation; the same in every run."""

    @lru_cache(maxsize=2)
    def pairs_of(picture: Path) -> list[Pair]:
        return validation_pairs(
            [picture],
            crop_size=crop_size,
            scale=scale,
            seed=_SEED,
            degradation=RealESRGANSettings(),
            crops_per_picture=draws,
        )

    def load(picture: Path, number: int) -> EvalPair:
        pair = pairs_of(picture)[number]
        return EvalPair(pair.name, pair.lr, pair.hr.shape[:2], pair.hr)

    return [
        Entry(f"{picture.stem}-{number}", picture.stem, partial(load, picture, number))
        for picture in pictures
        for number in range(draws)
    ]


def folder_entries(
    hr: Path | None,
    lr: Path,
    *,
    scale: int = 4,
    centre_crop: int = 0,
    name_endings: Sequence[str] = (),
) -> list[Entry]:
    """Pair images of the same name in two folders, or list one folder without ground truths.

    Args:
      hr: folder of the ground truths, or None.
      lr: folder of the inputs.
      scale: scale of the result if there is no ground truth.
      centre_crop: use this many central pixels of the ground truth and the matching part of the
        input; 0: all.
      name_endings: endings to ignore when names are compared ("_HR", "_LR4").

    Raises:
      UserError: a folder without images, or images without partners (the first one is named).
        An image that cannot be read or does not fit its partner fails when it is loaded.
    """
    small = _by_name(lr, name_endings)
    large = {} if hr is None else _by_name(hr, name_endings)
    alone = sorted(set(large) ^ set(small)) if hr is not None else []
    if alone:
        told = ", ".join(
            f"{name} (not in {lr if name in large else hr})" for name in alone[:_NAMED]
        )
        rest = f" and {len(alone) - _NAMED} more" if len(alone) > _NAMED else ""
        raise UserError(f"eval.hr and eval.lr: pictures without partner: {told}{rest}")
    return [
        Entry(name, name, partial(_load, name, large.get(name), path, scale, centre_crop))
        for name, path in sorted(small.items())
    ]


def _by_name(folder: Path, endings: Sequence[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in pictures_in(folder):
        name = path.stem
        for ending in endings:
            name = name.removesuffix(ending)
        if name in found:
            raise UserError(
                f"{folder} has two pictures named {name}: {found[name].name}, {path.name}"
            )
        found[name] = path
    return found


def _load(name: str, hr: Path | None, lr: Path, scale: int, centre_crop: int) -> EvalPair:
    source = np.asarray(read_photo(lr).rgb)
    if hr is None:
        return EvalPair(name, source, (source.shape[0] * scale, source.shape[1] * scale), None)
    truth = np.asarray(read_photo(hr).rgb)
    factor = truth.shape[0] // source.shape[0]
    if factor < 1 or truth.shape != (source.shape[0] * factor, source.shape[1] * factor, 3):
        sizes = f"{truth.shape[1]}x{truth.shape[0]} and {source.shape[1]}x{source.shape[0]}"
        raise UserError(f"{hr} and {lr} do not fit: {sizes}, no whole multiple")
    if centre_crop:
        if min(truth.shape[:2]) < centre_crop or centre_crop % factor:
            raise UserError(
                f"{hr} has no central {centre_crop} px of whole pixels of {lr}; "
                "set another eval.centre_crop"
            )
        source = _centre(source, centre_crop // factor)
        rows, columns = truth.shape[0] // factor, truth.shape[1] // factor
        top, left = ((side - centre_crop // factor) // 2 * factor for side in (rows, columns))
        truth = truth[top : top + centre_crop, left : left + centre_crop]
    return EvalPair(name, source, truth.shape[:2], truth)


def _centre(picture: np.ndarray, side: int) -> np.ndarray:
    top, left = ((length - side) // 2 for length in picture.shape[:2])
    return picture[top : top + side, left : left + side]


def enlarge(picture: np.ndarray, size: tuple[int, int], kernel: str = "bicubic") -> np.ndarray:
    """Resize [h, w, 3] uint8 to (height, width) with Pillow's "bicubic" or "lanczos"."""
    resample = Image.Resampling[kernel.upper()]
    return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), resample))


def pictures_in(folder: Path) -> list[Path]:
    """List a folder's images by name.

    Raises:
      UserError: there is no such folder, or it has no images.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; check eval.hr and eval.lr")
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if not found:
        raise UserError(f"{folder} holds no pictures ({', '.join(SUFFIXES)})")
    return found
